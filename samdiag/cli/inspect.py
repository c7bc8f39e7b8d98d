"""`samdiag inspect`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samdiag.cli import completion, flags, list_flags
from samdiag.cli.inspecting import Gating, Inspecting, Plan
from samdiag.cli.streams import complain, report_width, say, steady_streams, told, wants_color
from samdiag.errors import EXIT_OK, EXIT_UNDECIDED, SamdiagError, UsageError
from samdiag.probes import Verify
from samdiag.reports.media import medium

if TYPE_CHECKING:
    from samdiag.fleet.entries import Entry


@flags.with_settings
def inspect(
    context: typer.Context,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CKPT…",
            help="Checkpoints: .safetensors, .pt, .pth, .bin, .ckpt, a folder, a folder of them, or a glob in quotes.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
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
            "checkpoint; subsample: those of an eighth of the data; or neighbour: those of the checkpoint before.",
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
    format: list_flags.Medium = "text",
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
            help="Verdicts or severities that exit 1: a list, any, never. (default: error)",
            panel=flags.OUT,
            autocompletion=completion.fail_on,
        ),
    ] = None,
    require: list_flags.Require = None,
    baseline: list_flags.BaselineFile = None,
    update_baseline: list_flags.UpdateBaseline = False,
    strict_spec: list_flags.StrictSpec = False,
    report: list_flags.Reports = None,
    each: list_flags.Each = False,
    files_from: list_flags.FilesFrom = None,
    null: list_flags.Null = False,
    match: list_flags.Match = None,
    every: list_flags.Every = None,
    last: list_flags.Last = None,
    seeds: list_flags.Seeds = None,
    shard: list_flags.ShardOf = None,
    resume: list_flags.Resume = None,
    workers: list_flags.Workers = None,
    list_only: list_flags.ListOnly = False,
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
    call = Call(
        chosen=Chosen(
            paths=checkpoints or [],
            files_from=files_from,
            null=null,
            match=list_flags.several(context, "match", match) or [],
            every=every,
            last=last,
            seeds=seeds,
            shard=shard,
            list_only=list_only,
        ),
        overrides=overrides,
        sources=flags.from_environment(context, overrides),
        config=config,
        format=format,
        output=output,
        reports=list_flags.several(context, "report", report) or [],
        emit=emit,
        explain=explain,
        theory=theory,
        each=each,
        quiet=quiet or flags.quiet_variable(),
        cross_check=cross_check,
        warm_start=warm_start,
        verify=flags.verify_of(context, verify, steps, budget),
        require=list_flags.several(context, "require", require),
        baseline=baseline,
        update_baseline=update_baseline,
        strict_spec=strict_spec or None,
        resume=resume,
        workers=workers,
    )
    raise typer.Exit(call.answer())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which checkpoints the command line means."""

    paths: Sequence[str]
    files_from: str | None = None
    null: bool = False
    match: Sequence[str] = ()
    every: int | None = None
    last: int | None = None
    seeds: str | None = None
    shard: str | None = None
    list_only: bool = False

    def listed(self) -> tuple[Sequence[Entry], bool, Sequence[str]]:
        """The entries in order, whether it is a list, and notes about it.

        Raises:
            UsageError: there are none, or a flag is not what it should be.
        """
        from samdiag.fleet.listing import list_entries
        from samdiag.fleet.shards import parse_shard, take

        shard = None if self.shard is None else parse_shard(self.shard)
        found = list_entries(
            self.paths,
            files_from=self.files_from,
            null=self.null and (self.files_from is not None or not self.list_only),
            match=self.match,
            every=self.every,
            last=self.last,
            seeds=list_flags.parse_seeds(self.seeds),
        )
        entries = tuple(take(found.entries, shard))
        notes = found.notes
        if shard is not None and not entries:
            notes = (*notes, f"--shard {shard}: a list of {len(found.entries)} leaves nothing for this share")
        return entries, found.many or shard is not None, notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The command line of `inspect`."""

    chosen: Chosen
    overrides: Mapping[str, Any]
    sources: Mapping[str, str] | None = None
    config: str | None = None
    format: str = "text"
    output: Path | None = None
    reports: Sequence[str] = ()
    emit: Path | None = None
    explain: bool = False
    theory: bool = False
    each: bool = False
    quiet: int = 0
    cross_check: bool = False
    warm_start: str | None = None
    verify: Verify | None = None
    require: Sequence[str] | None = None
    baseline: Path | None = None
    update_baseline: bool = False
    strict_spec: bool | None = None
    resume: Path | None = None
    workers: str | None = None

    def answer(self) -> int:
        """Does it, writing each report as it is finished; the exit code."""
        steady_streams()
        inspecting: Inspecting | None = None
        with told(found=lambda: EXIT_UNDECIDED if inspecting is None else inspecting.code):
            self._check()
            entries, many, notes = self.chosen.listed()
            if not self.quiet:
                for note in notes:
                    say(f"note: {note}")
            if self.chosen.list_only:
                return self._print_list(entries)
            if self.explain:
                return _explain([e.path for e in entries], self.overrides, self.config, self.sources)
            inspecting = Inspecting(self._plan(entries, many or self.resume is not None))
            return inspecting.go()
        raise AssertionError("unreachable")

    def _print_list(self, entries: Sequence[Entry]) -> int:
        """The paths, each once, as --files-from and `merge --expect` read them."""
        end = "\0" if self.chosen.null else "\n"
        paths = dict.fromkeys(entry.path for entry in entries)
        if end == "\n" and any("\n" in path for path in paths):
            raise UsageError("a path holds a line's end, and the list is one of lines", "say -0 as well")
        sys.stdout.flush()
        sys.stdout.buffer.write("".join(path + end for path in paths).encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
        return EXIT_OK

    def _check(self) -> None:
        """What cannot be asked for together.

        Raises:
            UsageError: the first of it.
        """
        medium(self.format)
        if self.theory and self.format != "text":
            raise UsageError("--theory is part of the text report only", "leave out --format, or --theory")
        if self.explain and self.emit is not None:
            raise UsageError("--explain measures nothing that --emit could write", "leave out one of the two")
        if self.each and self.format != "text":
            raise UsageError("--each is for the text report", "leave out --format, or --each")
        if self.workers is not None and self.warm_start not in (None, "neighbour", "subsample"):
            todo = "use --warm-start neighbour, or leave out --workers"
            raise UsageError("several processes cannot share the file of --warm-start", todo)
        if self.update_baseline and self.baseline is None:
            raise UsageError("--update-baseline has no file to write", "name it: --baseline FILE --update-baseline")

    def _plan(self, entries: Sequence[Entry], many: bool) -> Plan:
        from samdiag.cli.report_files import parse_reports
        from samdiag.fleet.capacity import parse_workers
        from samdiag.fleet.entries import Asked
        from samdiag.gates import load_baseline, parse_fail_on, parse_requirements

        parse_fail_on(self.overrides.get("gate.fail_on"))  # a typo should not wait for the first checkpoint
        parse_requirements(self.require)
        asked = Asked(
            overrides=self.overrides,
            sources=self.sources or {},
            config=self.config,
            cross_check=self.cross_check,
            warm_start=self.warm_start,
            verify=self.verify,
        )
        return Plan(
            entries=entries,
            many=many,
            asked=asked,
            gating=Gating(
                fail_on=self.overrides.get("gate.fail_on"),
                require=self.require,
                strict_spec=self.strict_spec,
                baseline=None
                if self.baseline is None
                else load_baseline(self.baseline, missing_ok=self.update_baseline),
                update=self.baseline if self.update_baseline else None,
            ),
            format=self.format,
            output=self.output,
            reports=parse_reports(
                self.reports,
                inputs=[entry.path for entry in entries],
                taken={"--output": self.output, "--resume": self.resume, "--emit": self.emit},
            ),
            resume=self.resume,
            num_workers=0 if self.workers is None else parse_workers(self.workers, asked),
            each=self.each,
            theory=self.theory,
            emit=self.emit,
            quiet=self.quiet,
        )


def _explain(
    paths: Sequence[str], overrides: Mapping[str, Any], config: str | None, sources: Mapping[str, str] | None
) -> int:
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
