"""Reports of one checkpoint that may have a picture: what `sweep` and `spectrum` write, and how."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from samdiag.cli.streams import ReportOutput, complain, report_width, say, wants_color
from samdiag.errors import EXIT_OK, UsageError
from samdiag.registry import load
from samdiag.types import Failure

PICTURES = (".png", ".svg", ".pdf")


class Found(Protocol):
    """What was found about one checkpoint, or the failure that prevented it."""

    @property
    def failure(self) -> Failure | None: ...

    def to_dict(self) -> Mapping[str, Any]: ...


def write_found(
    found: Found,
    sink: ReportOutput,
    *,
    render: str,
    draw: str,
    format: str,
    output: Path | None,
    plot: Path | None,
    quiet: int,
) -> int:
    """The report, the picture and a failure's two lines; the exit code.

    Args:
        found: of one checkpoint.
        sink: where the report goes.
        render, draw: references to the functions that make the text report and the picture; loaded when they are used.
        format, output, plot, quiet: as the command line says.
    """
    if format == "json":
        sink.write(json.dumps(found.to_dict(), indent=2, allow_nan=False, ensure_ascii=True))
    elif found.failure is None and (quiet < 2 or output is not None):
        sink.write(load(render)(found, width=report_width(), color=output is None and wants_color(sys.stdout)))
    if found.failure is not None:
        complain(UsageError(found.failure.what, found.failure.todo))
        return found.failure.exit_code
    if plot is not None:
        try:
            load(draw)(found, plot)
        except OSError as error:
            raise UsageError(
                f"cannot write {plot}: {error.strerror or error}", "give --plot a file in a folder that is writable"
            ) from error
        say(f"picture: {plot}")
    return EXIT_OK


def check_picture(plot: Path) -> None:
    """Nothing, or UsageError before anything is measured."""
    if plot.suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {plot} has no known kind of picture", f"end its name in {', '.join(PICTURES)}")
    if not plot.absolute().parent.is_dir() or plot.is_dir():
        raise UsageError(f"cannot write {plot}", "give --plot a file in a folder that exists")
