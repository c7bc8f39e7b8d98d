"""`samdiag inspect`: the main job."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samdiag.cli import completion, emitted, flags
from samdiag.cli.interrupts import interruptible
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
from samdiag.patience import Patience
from samdiag.probes import Verify

if TYPE_CHECKING:
    from samdiag.types import Diagnosis


@flags.with_settings
def inspect(
    context: typer.Context,
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT…",
            help="Checkpoints: .safetensors, .pt, .pth, .bin, .ckpt, or a folder.",
            autocompletion=completion.checkpoints,
        ),
    ],
    rho: Annotated[str | None, flags.flag("--rho", help="SAM's radius.", panel=flags.SAM)] = None,
    config: flags.Config = None,
    jacobian: flags.Jacobian = None,
    cross_check: Annotated[
        bool, flags.flag("--cross-check", help="Ask PyHessian for a second opinion.", panel=flags.LOOK)
    ] = False,
    warm_start: Annotated[
        str | None,
        flags.flag(
            "--warm-start",
            help="Start the spectrum from these eigenvectors: a file, read if it is there and written for the next "
            "checkpoint; or subsample: those of an eighth of the data.",
            panel=flags.LOOK,
        ),
    ] = None,
    verify: Annotated[
        bool,
        flags.flag(
            "--verify", help="Try it: short runs from the checkpoint, in memory, test the report.", panel=flags.LOOK
        ),
    ] = False,
    steps: Annotated[
        int | None,
        flags.flag("--steps", help="Of --verify's runs. (default: enough to see what is predicted)", panel=flags.LOOK),
    ] = None,
    budget: Annotated[
        str | None,
        flags.flag(
            "--budget", help="Time for --verify: 90, 90s, 5m. (default: 60s, none with --steps)", panel=flags.LOOK
        ),
    ] = None,
    format: flags.Format = "text",
    output: Annotated[
        Path | None, flags.flag("--output", help="Write the report here instead of stdout.", panel=flags.OUT)
    ] = None,
    emit: Annotated[
        Path | None,
        flags.flag(
            "--emit",
            help="Write the prescribed settings here, for a training script: .toml, .json or .yaml. The report then "
            "ends with the same as code.",
            panel=flags.OUT,
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        flags.flag(
            "--fail-on",
            help="Verdicts that exit 1: a list, any, never. (default: severity error)",
            panel=flags.OUT,
            autocompletion=completion.fail_on,
        ),
    ] = None,
    explain: Annotated[
        bool, flags.flag("--explain", help="Print every setting with its source, and stop.", panel=flags.OUT)
    ] = False,
    theory: Annotated[
        bool,
        flags.flag("--theory", help="Also the papers' formulas as printed, beside the right ones.", panel=flags.OUT),
    ] = False,
    quiet: flags.Quiet = 0,
) -> None:
    """Diagnose checkpoints: verdict, evidence with error bars, and what to change.

    Exit code 0: inspected, nothing in --fail-on; 1: a finding in --fail-on; 2: usage; 3: something could not be
    decided; 130: interrupted.
    """
    overrides = flags.said(context)
    if rho is not None:
        overrides["sam.rho"] = flags.number(rho, "--rho")
    if jacobian is not None:
        overrides["measure.jacobian"] = jacobian
    if fail_on is not None:
        overrides["gate.fail_on"] = flags.parse_names(fail_on)
    raise typer.Exit(
        inspect_paths(
            checkpoints,
            overrides=overrides,
            sources=flags.from_environment(context, overrides),
            config=config,
            format=format,
            output=output,
            emit=emit,
            explain=explain,
            theory=theory,
            quiet=quiet or flags.quiet_variable(),
            cross_check=cross_check,
            warm_start=warm_start,
            verify=flags.verify_of(context, verify, steps, budget),
        )
    )


def inspect_paths(
    paths: list[str],
    *,
    overrides: dict[str, Any],
    sources: Mapping[str, str] | None = None,
    config: str | None = None,
    format: str = "text",
    output: Path | None = None,
    emit: Path | None = None,
    explain: bool = False,
    theory: bool = False,
    quiet: int = 0,
    cross_check: bool = False,
    warm_start: str | None = None,
    verify: Verify | None = None,
) -> int:
    """Inspects the checkpoints one after the other, writing each report as it is finished; returns the exit code."""
    steady_streams()
    with reader_may_leave():
        try:
            flags.check_format(format)
            if theory and format != "text":
                raise UsageError("--theory is part of the text report only", "leave out --format, or --theory")
            if explain and emit is not None:
                raise UsageError("--explain measures nothing that --emit could write", "leave out one of the two")
            if explain:
                return _explain(paths, overrides, config, sources)
            return _Run(
                paths=paths,
                overrides=overrides,
                sources=sources,
                config=config,
                format=format,
                output=output,
                emit=emit,
                theory=theory,
                quiet=quiet,
                cross_check=cross_check,
                warm_start=warm_start,
                verify=verify,
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
    from samdiag.spec.discover import look_up

    codes = set()
    for path in paths:
        if len(paths) > 1:
            say(path)
        try:
            opened = open_checkpoint(path)
            found, incomplete = look_up(
                overrides=overrides, sources=sources, config=config, checkpoint=opened, cwd=Path.cwd()
            )
        except SamdiagError as error:
            complain(error)
            codes.add(error.exit_code)
            continue
        sys.stdout.write(explain.render(found.settings, width=report_width(), color=wants_color(sys.stdout)) + "\n")
        sys.stdout.flush()
        for note in (*opened.notes, *found.warnings, *found.unused):
            say(f"note: {note}")
        if incomplete is not None:
            complain(incomplete)
        codes.add(EXIT_OK if incomplete is None else incomplete.exit_code)
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
    theory: bool
    quiet: int
    cross_check: bool
    warm_start: str | None = None
    verify: Verify | None = None
    emit: Path | None = None
    patience: Patience = field(default_factory=Patience)
    done: list[Diagnosis] = field(default_factory=list)

    def go(self) -> int:
        """The exit code of the whole run; what was finished before an interruption has been written."""
        from samdiag.gates import parse_fail_on

        parse_fail_on(self.overrides.get("gate.fail_on"))  # a typo should not wait for the first checkpoint
        if self.emit is not None:
            emitted.check_target(self.emit, self.paths, self.output)
        sink = ReportOutput(self.output, self.paths)
        try:
            for path in self.paths:
                diagnosis = self._one(path)
                self.done.append(diagnosis)
                if self.quiet < 2 or self.output is not None:
                    self._write(sink, diagnosis)
                if self.emit is not None and diagnosis.failure is None:
                    emitted.write_settings(self.emit, diagnosis)
                if self.patience.interrupted:
                    return self._interrupted(len(self.done) - 1)
            return self._exit_code()
        except KeyboardInterrupt:
            return self._interrupted(len(self.done))
        finally:
            sink.close()

    def _interrupted(self, finished: int) -> int:
        say(f"samdiag: interrupted; {finished} of {len(self.paths)} checkpoint(s) finished")
        return EXIT_INTERRUPTED

    def _one(self, path: str) -> Diagnosis:
        from samdiag import pipeline

        shown = sys.stderr.isatty() and not self.quiet
        with (
            progress_line(shown) as progress,
            contextlib.redirect_stdout(sys.stderr),  # stdout is the report's
            interruptible(self.patience),
        ):
            return pipeline.inspect(
                path,
                overrides=self.overrides,
                sources=self.sources,
                config=self.config,
                cross_check=self.cross_check,
                warm_start=self.warm_start,
                verify=self.verify,
                announce=None if self.quiet else say,
                progress=progress,
                patience=self.patience,
            )

    def _write(self, sink: ReportOutput, diagnosis: Diagnosis) -> None:
        from samdiag.reports import json_lines, text, theory, training_code

        if self.format == "json":
            sink.write(json_lines.render(diagnosis, indent=2 if len(self.paths) == 1 else None))
        elif diagnosis.failure is None:
            color = self.output is None and wants_color(sys.stdout)
            sink.write(text.render(diagnosis, width=report_width(), color=color))
            if self.theory:
                sink.write("\n" + theory.render(diagnosis, width=report_width(), color=color))
            if self.emit is not None and (code := training_code.render(diagnosis)):
                sink.write("\n" + code)
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
