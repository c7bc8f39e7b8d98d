"""`samdiag trend`: what became of a run, from the saved reports of its checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from samdiag.cli import flags, saved
from samdiag.cli.streams import ReportOutput, report_width, steady_streams, told, wants_color
from samdiag.errors import UsageError
from samdiag.types import Diagnosis


def trend(
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS…", help="JSON or JSON Lines of `samdiag inspect --format json`; -: stdin."),
    ],
    quantity: Annotated[
        list[str] | None,
        flags.flag(
            "--quantity",
            help="A number to follow; may be repeated. (default: loss, gradient_ratio, lambda_max, lambda_min)",
            panel=flags.OUT,
        ),
    ] = None,
    match: Annotated[
        list[str] | None,
        flags.flag(
            "--match", help="Only checkpoints whose path fits a glob or a /regex/; may be repeated.", panel=flags.OUT
        ),
    ] = None,
    format: Annotated[str, flags.flag("--format", help="text, json or markdown.", panel=flags.OUT)] = "text",
    output: Annotated[
        Path | None, flags.flag("--output", help="Write the report here instead of stdout.", panel=flags.OUT)
    ] = None,
) -> None:
    """What became of each run: a row per checkpoint, what changed beyond the error bars, a sparkline per number.

    Reads saved reports and measures nothing. Exit code 0: shown, whatever it says; 2: usage; 3: a file is no report.
    """
    steady_streams()
    with told():
        from samdiag.trends import USUAL, check_names, trend_of

        saved.check_format(format)
        names = [name.strip() for text in quantity or () for name in text.split(",") if name.strip()] or USUAL
        check_names(names)
        sink = ReportOutput(output, results)
        try:
            found = trend_of(_fitting(saved.read_all(results), match or []), names)
            if format == "json":
                sink.write(json.dumps(found.to_dict(), indent=2, allow_nan=False))
            else:
                sink.write(_text(found, format, output))
        finally:
            sink.close()


def _text(found: object, format: str, output: Path | None) -> str:
    from samdiag.reports import trend_text
    from samdiag.trends import Trend

    assert isinstance(found, Trend)
    if format == "markdown":
        return trend_text.render_markdown(found)
    color = output is None and wants_color(sys.stdout)
    return trend_text.render(found, width=report_width(), color=color, ascii=saved.needs_ascii(output is not None))


def _fitting(diagnoses: list[Diagnosis], match: list[str]) -> list[Diagnosis]:
    """Those whose path any of the patterns fits."""
    from samdiag.fleet.patterns import matcher

    wanted = [matcher(pattern) for pattern in match]
    kept = [d for d in diagnoses if not wanted or (d.checkpoint and any(fits(d.checkpoint.path) for fits in wanted))]
    if not kept:
        raise UsageError(f"--match fits none of the {len(diagnoses)} reports", "a glob fits a path's end: 'run1/*'")
    return kept
