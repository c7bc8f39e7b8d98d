"""Time as a value that is passed in, so that waiting can be tested without waiting."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time and waits."""

    def now(self) -> float:
        """Seconds from some fixed moment; never goes back."""

    def wall(self) -> float:
        """Seconds since 1970, as file systems count them."""

    def sleep(self, seconds: float) -> None:
        """Waits."""


class SystemClock:
    """The machine's own."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
