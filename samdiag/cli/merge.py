"""`samdiag merge`: the results of shards, of resumed runs and of machines as one, and the gate over all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samdiag.cli import completion, flags, list_flags
from samdiag.cli.streams import WRITE_TODO, report_width, say, steady_streams, told, wants_color
from samdiag.errors import EXIT_UNDECIDED, CannotDecide, UsageError
from samdiag.quoting import listed, shown
from samdiag.whole_file import replacing, usual_mode

if TYPE_CHECKING:
    from samdiag.cli.inspecting import Gating
    from samdiag.cli.report_files import ReportFile
    from samdiag.fleet.merging import Merged
    from samdiag.outcomes import Outcome


def merge(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="JSON Lines that `inspect --resume` or `--format json` wrote."),
    ],
    output: Annotated[
        Path | None,
        flags.flag(
            "--output", help="Write here, in one step, instead of to stdout. It may be one of FILE….", panel=flags.OUT
        ),
    ] = None,
    format: Annotated[
        str,
        flags.flag(
            "--format",
            help="json: JSON Lines; or text, markdown, junit, github.",
            panel=flags.OUT,
            autocompletion=completion.formats,
        ),
    ] = "json",
    report: list_flags.Reports = None,
    fail_on: Annotated[
        str | None,
        flags.flag(
            "--fail-on",
            help="Verdicts that exit 1: a list, any, never. (default: what each record's project said)",
            panel=flags.OUT,
            autocompletion=completion.fail_on,
        ),
    ] = None,
    require: list_flags.Require = None,
    baseline: list_flags.BaselineFile = None,
    strict_spec: list_flags.StrictSpec = False,
    expect: Annotated[
        Path | None,
        flags.flag(
            "--expect",
            help="The list that the results should be of, as `inspect --list` writes it: what has none exits 3.",
            panel=flags.OUT,
        ),
    ] = None,
    quiet: flags.Quiet = 0,
) -> None:
    """Join results: each checkpoint once, in the order of a list, and the gate over all of them.

    A failure goes where another file has the result, an older version's where a newer one is there. Nothing is
    measured. Exit codes as for `inspect`.
    """
    steady_streams()
    with told():
        from samdiag.cli.inspecting import Gating
        from samdiag.gates import load_baseline, parse_fail_on, parse_requirements

        names = None if fail_on is None else flags.parse_names(fail_on)
        parse_fail_on(names)
        require = list_flags.several(context, "require", require)
        parse_requirements(require)
        gating = Gating(
            fail_on=names,
            require=require,
            strict_spec=strict_spec or None,
            baseline=None if baseline is None else load_baseline(baseline),
        )
        call = _Merge(
            files=files,
            output=output,
            format=format,
            reports=_report_files(list_flags.several(context, "report", report) or [], files, output),
            gating=gating,
            expect=expect,
            quiet=quiet or flags.quiet_variable(),
        )
        code = call.go()
    raise typer.Exit(code)


def _report_files(asked: Sequence[str], files: Sequence[Path], output: Path | None) -> tuple[ReportFile, ...]:
    from samdiag.cli.report_files import parse_reports

    return parse_reports(asked, inputs=[str(file) for file in files], taken={"--output": output})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merge:
    """One call."""

    files: Sequence[Path]
    output: Path | None
    format: str
    reports: Sequence[ReportFile]
    gating: Gating
    expect: Path | None
    quiet: int

    def go(self) -> int:
        """Reads, writes and judges; the exit code."""
        from samdiag.cli.report_files import write_reports
        from samdiag.fleet.merging import merging
        from samdiag.gates import worst
        from samdiag.reports.media import medium

        medium(self.format)
        with ExitStack() as held:
            if self.output is not None:
                held.enter_context(_held(self.output))
            merged = held.enter_context(merging(self.files))
            self._check_output(merged)
            merged, missing, notes = self._held_to_the_list(merged)
            if not self.quiet:
                for note in (*merged.notes, *notes):
                    say(f"note: {note}")
            outcomes, codes = [], {EXIT_UNDECIDED} if missing or merged.num_torn else set()
            for diagnosis, seed in merged.diagnoses():
                outcome = self.gating.judge(diagnosis, seed=seed)
                codes.add(outcome.exit_code)
                if self.format != "json" or self.reports:  # else ten thousand need not be held at once
                    outcomes.append(outcome)
            if self.quiet < 2 or self.output is not None:
                self._write(merged, outcomes, missing)
            write_reports(self.reports, outcomes, missing=missing)
        return worst(codes)

    def _held_to_the_list(self, merged: Merged) -> tuple[Merged, int, Sequence[str]]:
        """What stays, how many of --expect have no record, and notes."""
        from samdiag.fleet.expecting import hold, read_list

        if self.expect is None:
            return merged, 0, ()
        expected = read_list(self.expect)
        found = hold(merged, expected)
        notes = list(found.notes)
        if found.missing:
            notes.append(f"{len(found.missing)} of {len(expected)} have no record: {listed(found.missing, 5)}")
        return found.merged, len(found.missing), notes

    def _check_output(self, merged: Merged) -> None:
        """Nothing, where no result would be lost by writing --output.

        Raises:
            UsageError: it would.
        """
        from samdiag.fleet.merging import key_set

        if self.output is None:
            return
        if self.output.is_dir() or not self.output.absolute().parent.is_dir():
            raise UsageError(f"cannot write {shown(self.output)}", "give --output a file in a folder that exists")
        if not self.output.is_file() or self.output.stat().st_size == 0:
            return
        place = self.output.resolve()
        given = any(file.resolve() == place for file in self.files)
        if self.format != "json":
            if given:
                what = f"--output {shown(self.output)} is one of the files to merge, and would become a report"
                raise UsageError(what, "give the report a name of its own")
        elif not given:
            lost = key_set(self.output) - {row.key for row in merged.rows}
            if lost:
                what = f"{shown(self.output)} holds {len(lost)} record(s) that are in none of the files to merge"
                raise UsageError(what, "name it among them too, or give another --output")

    def _write(self, merged: Merged, outcomes: Sequence[Outcome], missing: int) -> None:
        """The union, whole or not at all.

        Raises:
            CannotDecide: --output cannot be written.
            OSError: the same for stdout, or its reader went away.
        """
        content = self._content(merged, outcomes, missing)
        if self.output is None:
            for part in content:
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            return
        target = Path(os.path.realpath(self.output))
        try:
            if target.exists() and not target.is_file():  # a pipe, a device
                with target.open("wb") as stream:
                    stream.writelines(content)
                return
            with replacing(target, mode=usual_mode(target)) as beside, open(beside, "wb") as file:
                file.writelines(content)
        except OSError as error:
            what = f"the result could not be written to {shown(self.output)}: {error.strerror or error}"
            raise CannotDecide(what, WRITE_TODO) from error

    def _content(self, merged: Merged, outcomes: Sequence[Outcome], missing: int) -> Iterator[bytes]:
        from samdiag.reports import fleet_text
        from samdiag.reports.media import medium

        if self.format == "json":  # as the records stand in their files
            yield from (text + b"\n" for text in merged.texts())
            return
        if self.format == "text" and outcomes:
            color = self.output is None and wants_color(sys.stdout)
            text = fleet_text.render(outcomes, missing=missing, width=report_width(), color=color)
        else:
            text = medium(self.format).render(outcomes, missing=missing)
        if text:
            yield (text + "\n").encode("utf-8", errors="replace")


@contextmanager
def _held(output: Path) -> Iterator[None]:
    """Inside, no run writes to the file that is about to be replaced; one that does already is a UsageError."""
    from samdiag.fleet.appending import RecordFile

    if not output.is_file():
        yield
        return
    with RecordFile(output):
        yield
