"""`samdiag inspect`: the main job."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samdiag.cli.streams import (
    ReportOutput,
    complain,
    progress_line,
    reader_may_leave,
    report_width,
    say,
    steady_streams,
    wants_color,
)
from samdiag.errors import EXIT_INTERRUPTED, EXIT_OK, SamdiagError, UsageError
from samdiag.registry import REPORTS

if TYPE_CHECKING:
    from samdiag.types import Diagnosis

SAM = "Training settings that are judged"
SPEC = "Model and data"
LOOK = "How hard to look"
OUT = "Report and gate"


def _flag(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option with its SAMDIAG_* twin."""
    long = next(n for n in names if n.startswith("--")).lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, help=help, rich_help_panel=panel, envvar=f"SAMDIAG_{long}", **more)


def inspect(
    context: typer.Context,
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CKPT…", help="Checkpoints: .safetensors, .pt, .pth, .bin.")
    ],
    rho: Annotated[str | None, _flag("--rho", help="SAM's radius.", panel=SAM)] = None,
    variant: Annotated[str | None, _flag("--variant", help="sam, usam or asam.  [default: sam]", panel=SAM)] = None,
    lr: Annotated[float | None, _flag("--lr", help="Learning rate.", panel=SAM)] = None,
    momentum: Annotated[float | None, _flag("--momentum", help="Heavy-ball momentum.  [default: 0]", panel=SAM)] = None,
    weight_decay: Annotated[
        float | None, _flag("--weight-decay", help="Weight decay as the optimizer applies it.  [default: 0]", panel=SAM)
    ] = None,
    batch_size: Annotated[
        int | None,
        _flag(
            "--batch-size",
            help="Training batch size.  [default: that of your own batches; a Dataset: full batch]",
            panel=SAM,
        ),
    ] = None,
    model: Annotated[
        str | None, _flag("--model", help="module:factory or file.py:factory → nn.Module.", panel=SPEC)
    ] = None,
    data: Annotated[
        str | None, _flag("--data", help="module:factory or file.py:factory → batches or a Dataset.", panel=SPEC)
    ] = None,
    loss: Annotated[
        str | None, _flag("--loss", help="cross_entropy, mse, … or file.py:function(model, batch).", panel=SPEC)
    ] = None,
    problem: Annotated[
        str | None, _flag("--problem", help="file.py:function → samdiag.Problem, in place of the three.", panel=SPEC)
    ] = None,
    config: Annotated[str | None, _flag("--config", help="A TOML file, or TOML itself.", panel=SPEC)] = None,
    samples: Annotated[int | None, _flag("--samples", help="Samples to analyse.  [default: 2048]", panel=LOOK)] = None,
    seed: Annotated[
        int | None, _flag("--seed", help="Seed of start vectors and data order.  [default: 0]", panel=LOOK)
    ] = None,
    device: Annotated[
        str | None, _flag("--device", help="auto, cpu, cuda, cuda:0.  [default: auto]", panel=LOOK)
    ] = None,
    dtype: Annotated[
        str | None, _flag("--dtype", help="auto, float32 or float64.  [default: auto]", panel=LOOK)
    ] = None,
    tol: Annotated[
        float | None, _flag("--tol", help="Relative residual asked of either end.  [default: 0.01]", panel=LOOK)
    ] = None,
    num_eigenvalues: Annotated[
        int | None, _flag("--num-eigenvalues", help="Eigenvalues reported per end.  [default: 5]", panel=LOOK)
    ] = None,
    cross_check: Annotated[
        bool, _flag("--cross-check", help="Ask PyHessian for a second opinion.", panel=LOOK)
    ] = False,
    format: Annotated[str, _flag("--format", help="text or json.", panel=OUT)] = "text",
    output: Annotated[
        Path | None, _flag("--output", help="Write the report here instead of stdout.", panel=OUT)
    ] = None,
    fail_on: Annotated[
        str | None,
        _flag("--fail-on", help="Verdicts that exit 1: a list, any, never.  [default: severity error]", panel=OUT),
    ] = None,
    explain: Annotated[
        bool, _flag("--explain", help="Print every setting with its source, and stop.", panel=OUT)
    ] = False,
    quiet: Annotated[
        int,
        typer.Option("-q", "--quiet", count=True, help="-q: report only; -qq: exit code only.", rich_help_panel=OUT),
    ] = 0,
) -> None:
    """Diagnose checkpoints: verdict, evidence with error bars, and what to change.

    Exit code 0: inspected, nothing in --fail-on; 1: a finding in --fail-on; 2: usage; 3: something could not be
    decided; 130: interrupted.
    """
    overrides: dict[str, Any] = {
        "problem": problem,
        "model": model,
        "data": data,
        "loss": loss,
        "sam.rho": _number(rho, "--rho"),
        "sam.variant": variant,
        "sam.lr": lr,
        "sam.momentum": momentum,
        "sam.weight_decay": weight_decay,
        "sam.batch_size": batch_size,
        "measure.samples": samples,
        "measure.seed": seed,
        "measure.device": device,
        "measure.dtype": dtype,
        "measure.tol": tol,
        "measure.num_eigenvalues": num_eigenvalues,
        "gate.fail_on": None if fail_on is None else parse_names(fail_on),
    }
    raise typer.Exit(
        inspect_paths(
            checkpoints,
            overrides={k: v for k, v in overrides.items() if v is not None},
            sources=_from_environment(context, overrides),
            config=config,
            format=format,
            output=output,
            explain=explain,
            quiet=quiet or _quiet_variable(),
            cross_check=cross_check,
        )
    )


def _from_environment(context: typer.Context, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The variable that said each setting, for those that the command line itself did not say."""
    said = {}
    for name in overrides:
        parameter = name.rpartition(".")[2]
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "ENVIRONMENT":
            said[name] = f"SAMDIAG_{parameter.upper()}"
    return said


def _quiet_variable() -> int:
    """SAMDIAG_QUIET, the twin of a flag that is counted: 1 or 2."""
    text = os.environ.get("SAMDIAG_QUIET", "0")
    return int(text) if text.isdecimal() else 1


def parse_names(text: str) -> list[str]:
    """`"a, B,"` as ["a", "b"]: the entries of a list typed on the command line."""
    return [name.strip().lower() for name in text.split(",") if name.strip()]


def _number(text: str | None, flag: str) -> float | None:
    """A number typed on the command line, kept as text until here so that a bad one gets samdiag's own two lines."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        complain(UsageError(f"{flag} {text!r} is not a number", f"give a positive number, e.g. {flag} 0.05"))
        raise typer.Exit(2) from None


def inspect_paths(
    paths: list[str],
    *,
    overrides: dict[str, Any],
    sources: Mapping[str, str] | None = None,
    config: str | None = None,
    format: str = "text",
    output: Path | None = None,
    explain: bool = False,
    quiet: int = 0,
    cross_check: bool = False,
) -> int:
    """Inspects the checkpoints one after the other, writing each report as it is finished; returns the exit code."""
    steady_streams()
    with reader_may_leave():
        try:
            if format not in REPORTS:
                raise UsageError(f"--format {format!r} is unknown", f"choose {' or '.join(REPORTS)}")
            if explain:
                return _explain(paths, overrides, config, sources)
            return _Run(
                paths=paths,
                overrides=overrides,
                sources=sources,
                config=config,
                format=format,
                output=output,
                quiet=quiet,
                cross_check=cross_check,
            ).go()
        except SamdiagError as error:
            complain(error)
            return error.exit_code
    raise AssertionError("unreachable")


def _explain(paths: list[str], overrides: dict[str, Any], config: str | None, sources: Mapping[str, str] | None) -> int:
    """The settings of every checkpoint with their provenance; nothing is measured."""
    from samdiag.formats import open_checkpoint
    from samdiag.gates import worst
    from samdiag.reports import explain
    from samdiag.spec.discover import resolve

    codes = set()
    for path in paths:
        if len(paths) > 1:
            say(path)
        try:
            found = resolve(
                overrides=overrides, sources=sources, config=config, checkpoint=open_checkpoint(path), cwd=Path.cwd()
            )
        except SamdiagError as error:
            complain(error)
            codes.add(error.exit_code)
            continue
        sys.stdout.write(explain.render(found.settings, width=report_width(), color=wants_color(sys.stdout)) + "\n")
        sys.stdout.flush()
        for warning in found.warnings:
            say(f"note: {warning}")
        codes.add(EXIT_OK)
    return worst(codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One call over a list of checkpoints."""

    paths: list[str]
    overrides: Mapping[str, Any]
    sources: Mapping[str, str] | None
    config: str | None
    format: str
    output: Path | None
    quiet: int
    cross_check: bool
    done: list[Diagnosis] = field(default_factory=list)

    def go(self) -> int:
        """The exit code of the whole run; what was finished before an interruption has been written."""
        from samdiag.gates import parse_fail_on

        parse_fail_on(self.overrides.get("gate.fail_on"))  # a typo should not wait for the first checkpoint
        sink = ReportOutput(self.output, self.paths)
        try:
            for path in self.paths:
                diagnosis = self._one(path)
                self.done.append(diagnosis)
                if self.quiet < 2 or self.output is not None:
                    self._write(sink, diagnosis)
            return self._exit_code()
        except KeyboardInterrupt:
            say(f"samdiag: interrupted; {len(self.done)} of {len(self.paths)} checkpoint(s) finished")
            return EXIT_INTERRUPTED
        finally:
            sink.close()

    def _one(self, path: str) -> Diagnosis:
        from samdiag import pipeline

        shown = sys.stderr.isatty() and not self.quiet
        with progress_line(shown) as progress, contextlib.redirect_stdout(sys.stderr):  # stdout is the report's
            return pipeline.inspect(
                path,
                overrides=self.overrides,
                sources=self.sources,
                config=self.config,
                cross_check=self.cross_check,
                progress=progress,
            )

    def _write(self, sink: ReportOutput, diagnosis: Diagnosis) -> None:
        from samdiag.reports import json_lines, text

        if self.format == "json":
            sink.write(json_lines.render(diagnosis, indent=2 if len(self.paths) == 1 else None))
        elif diagnosis.failure is None:
            color = self.output is None and wants_color(sys.stdout)
            sink.write(text.render(diagnosis, width=report_width(), color=color))
        if diagnosis.failure is not None:
            where = f"{diagnosis.checkpoint.path}: " if diagnosis.checkpoint else ""
            what = diagnosis.failure.what
            say(f"samdiag: {what if what.startswith(where.removesuffix(': ')) else where + what}")
            for line in diagnosis.failure.todo.splitlines():
                say(f"  {line}")

    def _exit_code(self) -> int:
        """The gate that applies: --fail-on, or what the project file says; each checkpoint is held to its own
        settings' gate.
        """
        from samdiag.gates import exit_code, parse_fail_on, worst

        codes = []
        for diagnosis in self.done:
            said = diagnosis.settings.get("gate.fail_on")
            gate = parse_fail_on(said.value if said else self.overrides.get("gate.fail_on"))
            codes.append(exit_code([diagnosis], gate))
        return worst(codes)
