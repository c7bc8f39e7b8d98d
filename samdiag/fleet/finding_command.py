"""A user's command that is run when a checkpoint fails the gate: told by JSON on its stdin, and never by a shell."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samdiag.encoding import jsonable
from samdiag.errors import UsageError
from samdiag.outcomes import Hit, Outcome
from samdiag.quoting import shown

STDERR = 2  # the command's output goes where this process's messages go: stdout is the report's
GRACE = 5.0  # seconds between asking a command to end and ending it


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCommand:
    """A program with its arguments, exactly as the user wrote them, and how long it may take.

    Nothing that comes from a checkpoint is part of the arguments or of the environment.
    """

    argv: tuple[str, ...]
    limit: float

    def run(self, document: Mapping[str, Any]) -> str | None:
        """Runs it with `document` as one line of ASCII JSON on its stdin; what went wrong, None where nothing did.

        Raises:
            KeyboardInterrupt: passed on, after the command was ended.
        """
        line = (json.dumps(jsonable(document), ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
        try:
            process = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=STDERR,
                stderr=STDERR,
                env=dict(os.environ),  # as it is here: libraries (readline) set variables behind Python's back
                start_new_session=True,  # Ctrl-C is for the watch; and what it starts can be ended with it
            )
        except OSError as error:
            return f"cannot be started: {error.strerror or error}"
        try:
            process.communicate(line, timeout=self.limit)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"took longer than {self.limit:g} s and was ended"
        except BaseException:
            _end(process)
            raise
        if process.returncode < 0:
            return f"was ended by signal {-process.returncode}"
        return f"ended with exit code {process.returncode}" if process.returncode else None


def parse_command(text: str, limit: float) -> FindingCommand:
    """The command that a line means, split as a shell splits words, with nothing else that a shell does.

    Raises:
        UsageError: it is empty, has an open quote, or names no program that can be run.
    """
    name = "--on-finding"
    try:
        argv = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{name} {shown(text)!r}: {str(error).lower()}", "close the quote") from None
    if not argv:
        raise UsageError(f"{name} is empty", f"give a program, e.g. {name} ./alert.sh")
    if shutil.which(argv[0]) is None:
        todo = f"give a program that is there and executable; for what a shell does: {name} \"sh -c '…'\""
        raise UsageError(f"{name}: there is no program {shown(argv[0])!r}", todo)
    return FindingCommand(argv=tuple(argv), limit=limit)


def describe(outcome: Outcome, hits: Sequence[Hit]) -> dict[str, Any]:
    """What the command is told: the checkpoint's path, the hits that are new, and the whole record."""
    checkpoint = outcome.diagnosis.checkpoint
    return {
        "checkpoint": None if checkpoint is None else checkpoint.path,
        "hits": [
            {"kind": hit.kind.value, "name": hit.name, "severity": hit.severity.value, "message": hit.message}
            for hit in hits
        ],
        "record": outcome.diagnosis.to_dict(),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the command and what it started: asked first, then made to."""
    for asked in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, asked)  # it leads a group of its own
            else:
                process.send_signal(asked)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            break
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
