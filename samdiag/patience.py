"""How long a measurement may still take: a time limit, and the first Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

TIME_LIMIT = "time limit"
INTERRUPTED = "interrupted"


class Patience:
    """Asked between two products: a reason to stop with the best answer so far, or None.

    Stages that can stop with an answer say so by `listening`; outside them an interruption is an ordinary
    KeyboardInterrupt, and so is the second one everywhere.

    Attributes:
        interrupted: an interruption was taken note of.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._deadline: float | None = None
        self._listening = False

    def begin(self, seconds: float | None) -> None:
        """Starts the clock with a limit of `seconds`; None: as long as it takes."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def run_out(self) -> str | None:
        """Why to stop now; None: go on."""
        if self.interrupted:
            return INTERRUPTED
        return TIME_LIMIT if self._deadline is not None and time.monotonic() > self._deadline else None

    def interrupt(self) -> bool:
        """Takes note of a Ctrl-C; False where it cannot wait: the second one, or a stage that has no answer yet."""
        if self.interrupted or not self._listening:
            return False
        self.interrupted = True
        return True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the first interruption is answered by what is known."""
        before, self._listening = self._listening, True
        try:
            yield
        finally:
            self._listening = before
