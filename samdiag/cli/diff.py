"""`samdiag diff`: two checkpoints, or two files of saved reports, side by side."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samdiag.cli import completion, flags, saved
from samdiag.cli.streams import ReportOutput, progress_line, report_width, say, steady_streams, told, wants_color
from samdiag.errors import EXIT_FINDING, EXIT_OK, EXIT_USAGE, UsageError

if TYPE_CHECKING:
    from samdiag.comparing import Diff
    from samdiag.fleet.entries import Asked
    from samdiag.types import Diagnosis


def _side(which: str) -> object:
    help = f"{which}: a checkpoint, a folder of checkpoints, or saved JSON of `samdiag inspect`."
    return typer.Argument(metavar=which, help=help, autocompletion=completion.checkpoints)


@flags.with_settings
def diff(
    context: typer.Context,
    before: Annotated[str, _side("A")],
    after: Annotated[str, _side("B")],
    rho: Annotated[str | None, flags.flag("--rho", help="SAM's radius.", panel=flags.SAM)] = None,
    config: flags.Config = None,
    exit_code: Annotated[
        bool, flags.flag("--exit-code", help="Exit 1 where anything differs.", panel=flags.OUT)
    ] = False,
    format: Annotated[str, flags.flag("--format", help="text, json or markdown.", panel=flags.OUT)] = "text",
    output: Annotated[
        Path | None, flags.flag("--output", help="Write the report here instead of stdout.", panel=flags.OUT)
    ] = None,
    quiet: flags.Quiet = 0,
) -> None:
    """What changed from A to B beyond both error bars: settings, verdict, findings, every number.

    Checkpoints are inspected, saved reports are read; several are matched by path, or else by training step. Exit code
    0: compared, whatever was found; 1: with --exit-code, something differs; 2: usage; 3: a side could not be diagnosed
    or nothing matches; 130: interrupted.
    """
    steady_streams()
    overrides = flags.said(context)
    if rho is not None:
        overrides["sam.rho"] = flags.number(rho, "--rho")
    quiet = quiet or flags.quiet_variable()
    with told():
        from samdiag.comparing import diff as compare_lists
        from samdiag.fleet.entries import Asked

        saved.check_format(format)
        asked = Asked(overrides=overrides, sources=flags.from_environment(context, overrides), config=config)
        sink = ReportOutput(output, [before, after])
        try:
            found = compare_lists(*_diagnoses((before, after), asked, quiet))
            if quiet < 2 or output is not None:
                sink.write(_text(found, format, output))
        finally:
            sink.close()
        code = EXIT_FINDING if exit_code and found.differs else _failed(found)
    raise typer.Exit(code)


def _diagnoses(sides: tuple[str, str], asked: Asked, quiet: int) -> list[list[Diagnosis]]:
    """What is known of each side: read, or measured in one session."""
    if all(map(saved.is_saved, sides)):
        return [saved.read_all([side]) for side in sides]
    from samdiag.fleet.listing import list_entries
    from samdiag.fleet.session import Session

    listed = [None if saved.is_saved(side) else list_entries([side]) for side in sides]
    for listing in listed:
        for note in listing.notes if listing and not quiet else ():
            say(f"note: {note}")
    shown = sys.stderr.isatty() and not quiet
    announce = None if quiet else say
    with progress_line(shown) as progress, contextlib.redirect_stdout(sys.stderr), Session(asked) as session:
        found = [
            saved.read_all([side])
            if listing is None
            else [session.inspect(entry, progress=progress, announce=announce) for entry in listing.entries]
            for side, listing in zip(sides, listed, strict=True)
        ]
    for diagnoses, listing in zip(found, listed, strict=True):
        failure = diagnoses[0].failure
        if listing is not None and len(diagnoses) == 1 and failure is not None and failure.exit_code == EXIT_USAGE:
            raise UsageError(failure.what, failure.todo)  # a wrong path or a missing rho is no finding about it
    return found


def _text(found: Diff, format: str, output: Path | None) -> str:
    from samdiag.reports import diff_text

    if format == "json":
        return json.dumps(found.to_dict(), indent=2, allow_nan=False)
    if format == "markdown":
        return diff_text.render_markdown(found)
    return diff_text.render(found, width=report_width(), color=output is None and wants_color(sys.stdout))


def _failed(found: Diff) -> int:
    """The exit code of what could not be diagnosed, the gravest; 0 where everything was."""
    failures = [side.failure for pair in found.pairs for side in (pair.before, pair.after) if side.failure is not None]
    return max((failure.exit_code for failure in failures), default=EXIT_OK)
