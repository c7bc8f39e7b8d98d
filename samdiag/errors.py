"""What can go wrong, in three kinds that are never mixed: the caller's mistake, no decision, and a bug of ours."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FINDING = 1  # at least one finding listed in --fail-on
EXIT_USAGE = 2  # bad flag, missing or bad spec, an untrusted import asked for
EXIT_UNDECIDED = 3  # unreadable, not converged, out of memory, not deterministic, or an internal error
EXIT_INTERRUPTED = 130  # Ctrl-C; what was finished is kept


class SamdiagError(Exception):
    """An expected failure: one line that says what was found and one that says what to do.

    Attributes:
        what: what was found, one line, without a trailing full stop needed.
        todo: what the user can do about it, one line.
        exit_code: the documented exit code that this failure leads to.
    """

    exit_code: int = EXIT_UNDECIDED

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(f"{what}\n{todo}")
        self.what = what
        self.todo = todo


class UsageError(SamdiagError):
    """The command, the spec or the project's own code is wrong; nothing was examined (exit 2)."""

    exit_code = EXIT_USAGE


class CannotDecide(SamdiagError):
    """The checkpoint could not be examined to the end (exit 3)."""

    exit_code = EXIT_UNDECIDED
