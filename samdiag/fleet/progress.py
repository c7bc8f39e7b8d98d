"""How far a list is: its rate over the last records, and the time that is left. Pure; the time is passed in."""

from __future__ import annotations

from collections import deque

WINDOW = 30  # records that the rate is taken over: enough to even out bursts of workers, few enough to follow a change
WARM = 10  # records after which the time before the first one (imports, reading the data) is left out of the rate


class Pace:
    """What is done of a list, and how fast.

    Records that were resumed count as done and not towards the rate: they cost nothing.

    Args:
        total: entries of the list; None where that is not known.
        now: seconds on any clock that the later calls use too.
    """

    def __init__(self, total: int | None, now: float) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        self._num_made = 0
        self._times: deque[float] = deque([now], maxlen=WINDOW + 1)  # when the last records were made

    def finish(self, now: float, *, failed: bool = False, resumed: bool = False) -> None:
        """Takes note of one record more."""
        self.done += 1
        self.failed += failed
        if resumed:
            if self._num_made == 0:
                self._times[0] = now  # nothing was made until here
            return
        self._num_made += 1
        self._times.append(now)
        if self._num_made == WARM:
            self._times.popleft()

    def rate(self, now: float) -> float | None:
        """Records per second over the last ones; it falls while one takes longer than they did. None: not yet known."""
        num = len(self._times) - 1
        span = self._times[-1] - self._times[0]
        if num < 1 or span <= 0:
            return None
        return num / (max(self._times[-1], now - span / num) - self._times[0])

    def seconds_left(self, now: float) -> float | None:
        """Until the list is done at that rate; None where that is not known."""
        rate = self.rate(now)
        if rate is None or self.total is None:
            return None
        since = min(now - self._times[-1], 1 / rate)  # part of the next record is done already
        return max(0.0, (self.total - self.done) / rate - since)

    def text(self, now: float, stage: str = "") -> str:
        """ "137/500, 2.1 per s, 2 min 53 s left", with failures before and the stage behind it where there are any."""
        parts = [str(self.done) if self.total is None else f"{self.done}/{self.total}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        rate, left = self.rate(now), self.seconds_left(now)
        if rate is not None:
            parts.append(rate_text(rate))
        if left is not None and self.done < (self.total or 0):
            parts.append(f"{duration(left)} left")
        if stage:
            parts.append(stage)
        return ", ".join(parts)


def rate_text(rate: float) -> str:
    """Records per second, minute or hour, whichever is at least one."""
    for unit, seconds in (("s", 1.0), ("min", 60.0)):
        if rate * seconds >= 1:
            return f"{_two_digits(rate * seconds)} per {unit}"
    return f"{_two_digits(rate * 3600)} per h"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"  # from there on one decimal rounds to 10


def duration(seconds: float) -> str:
    """ "45 s", "2 min 53 s", "1 h 5 min" or "3 d 2 h": the two largest units."""
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def stage_text(what: str, count: int) -> str:
    """What is being done to the checkpoint in hand: "spectrum: 12 Hessian products"."""
    return f"{what}: {count} Hessian products" if count else what
