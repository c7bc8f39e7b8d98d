"""Report on stdout, everything else on stderr, colour only where it is wanted."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from samdiag.errors import SamdiagError, UsageError
from samdiag.reports.escape import printable


def wants_color(stream: TextIO) -> bool:
    """Whether `stream` gets colour: NO_COLOR forbids, FORCE_COLOR demands, else a terminal that is not dumb."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def report_width() -> int:
    """Columns for a text report: the terminal's, between 60 and 120; 100 when there is none."""
    return max(60, min(120, shutil.get_terminal_size((100, 24)).columns))


def say(text: str) -> None:
    """One line on stderr, harmless whatever it contains."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def complain(error: SamdiagError) -> None:
    """What was found, and what to do, on stderr."""
    say(f"samdiag: {error.what}")
    for line in error.todo.splitlines():
        say(f"  {line}")


@contextmanager
def progress_line(shown: bool) -> Iterator[Callable[[str, int], None]]:
    """A spinner on stderr that says what is being done; nothing at all where it is not wanted."""
    if not shown:
        yield lambda _what, _count: None
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status(Text("starting"), spinner="dots") as status:

        def update(what: str, count: int) -> None:
            status.update(Text(f"{what}: {count} Hessian products" if count else what))

        yield update


class ReportOutput:
    """Where reports go: stdout, or one file.

    Records are flushed one by one, so that what was finished survives an interruption.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stream: TextIO = sys.stdout
        if path is not None:
            try:
                self._stream = path.open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    f"cannot write {path}: {error.strerror}",
                    "give --output a file in a folder that exists and is writable",
                ) from error

    def write(self, text: str) -> None:
        """One record, flushed.

        Raises:
            BrokenPipeError: the reader went away.
        """
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        if self._path is not None:
            self._stream.close()
