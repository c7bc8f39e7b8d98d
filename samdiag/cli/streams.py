"""Report on stdout, everything else on stderr, colour only where it is wanted."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer

from samdiag.errors import EXIT_FINDING, EXIT_INTERRUPTED, EXIT_UNDECIDED, CannotDecide, SamdiagError, UsageError
from samdiag.reports.escape import printable

WRITE_TODO = "make room, or write it elsewhere with --output"


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
    sys.stderr.write(no_commands(printable(text)) + "\n")
    sys.stderr.flush()


def no_commands(text: str) -> str:
    """`text` in which a runner of GitHub Actions reads no command; elsewhere as it is."""
    if not os.environ.get("GITHUB_ACTIONS"):
        return text
    from samdiag.reports.github import harmless

    return harmless(text)


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


def steady_streams() -> None:
    """Characters that the terminal's encoding lacks are replaced, never an exception in the middle of a report."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _a_gap() -> int:
    return EXIT_UNDECIDED


@contextmanager
def reader_may_leave(found: Callable[[], int] = _a_gap) -> Iterator[None]:
    """Ends quietly, with the code of a gap, when the reader of stdout goes away; says so when the disk is full.

    Args:
        found: the code of what was judged so far: a failed gate outranks a report that could not be written.
    """
    try:
        yield
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            complain(CannotDecide(f"the report could not be written: {error.strerror or error}", WRITE_TODO))
        with contextlib.suppress(OSError, ValueError):  # what stdout still holds must not fail again when Python exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_FINDING if found() == EXIT_FINDING else EXIT_UNDECIDED) from None


@contextmanager
def told(interrupted: str = "samdiag: interrupted", found: Callable[[], int] = _a_gap) -> Iterator[None]:
    """A command's body: what goes wrong in it is said in two lines and ends with its documented exit code.

    Args:
        interrupted: what a Ctrl-C is answered with.
        found: as for `reader_may_leave`.
    """
    with reader_may_leave(found):
        try:
            yield
        except SamdiagError as error:
            complain(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say(interrupted)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (typer.Exit, OSError):
            raise
        except Exception as error:  # under typer an escaped exception would exit 1, the code of a failed gate
            from samdiag.failing import failure_of

            failure = failure_of(error)
            complain(CannotDecide(failure.what, failure.todo))
            raise typer.Exit(failure.exit_code) from None


class ReportOutput:
    """Where reports go: stdout, or one file, opened when there is something to write.

    Records are flushed one by one, so that what was finished survives an interruption.

    Args:
        path: the file; None for stdout.
        inputs: files that are read and must not be written over.

    Raises:
        UsageError: `path` is one of the inputs, or its folder cannot be written.
    """

    def __init__(self, path: Path | None, inputs: list[str]) -> None:
        self._path = path
        self._stream: TextIO | None = sys.stdout if path is None else None
        if path is None:
            return
        if any(os.path.realpath(path) == os.path.realpath(entry) for entry in inputs):
            raise UsageError(f"--output {path} is one of the checkpoints", "give the report a name of its own")
        if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"cannot write {path}", "give --output a file in a folder that exists and is writable")

    def write(self, text: str) -> None:
        """One record, flushed.

        Raises:
            CannotDecide: the file cannot be written, e.g. because the disk is full.
            OSError: the same for stdout, or its reader went away.
        """
        try:
            if self._stream is None:
                assert self._path is not None
                self._stream = self._path.open("w", encoding="utf-8")
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError as error:
            if self._path is None:
                raise
            what = f"the report could not be written to {self._path}: {error.strerror or error}"
            raise CannotDecide(what, WRITE_TODO) from error

    def close(self) -> None:
        """Closes the file, if one was opened."""
        if self._path is not None and self._stream is not None:
            with contextlib.suppress(OSError):  # what could not be flushed was reported when it was written
                self._stream.close()
