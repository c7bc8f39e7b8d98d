"""One line on the terminal for a list of checkpoints: how many, how fast, how long still, and what is being done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING

from samdiag.fleet.entries import Entry
from samdiag.fleet.progress import Pace, stage_text
from samdiag.reports.escape import printable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

REFRESH = 12.5  # per second, as of Rich's own spinners: a small checkpoint's stages are short


class ListProgress:
    """The line; without `live` all of it does nothing but count."""

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._drawn = float("-inf")  # when a stage was drawn at once
        self.pace = Pace(total, clock())
        self.live: Live | None = None

    def stage(self, what: str, count: int) -> None:
        """What is being done to the one checkpoint in hand: the `progress` of `Session.inspect`."""
        self.say_stage(stage_text(what, count))

    def stage_of(self, entry: Entry, what: str, count: int) -> None:
        """The same where several are in hand: the `progress` of `workers.diagnose_in_order`."""
        self.say_stage(f"{PurePath(entry.path).name}: {stage_text(what, count)}")

    def say_stage(self, text: str) -> None:
        """The same in words of one's own; drawn now, if the last time was long enough ago."""
        self._stage = text
        now = self._clock()
        if self.live is not None and now - self._drawn > 1.0 / REFRESH:
            self._drawn = now
            self.live.refresh()

    def finish(self, *, failed: bool = False, resumed: bool = False) -> None:
        """One record more; `resumed`: it was there already."""
        self._stage = ""
        self.pace.finish(self._clock(), failed=failed, resumed=resumed)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, the line is gone from the terminal, so that others can be written there."""
        if self.live is None:
            yield
            return
        self.live.stop()
        try:
            yield
        finally:
            self.live.start()

    def __rich__(self) -> Text:
        from rich.text import Text

        line = printable(self.pace.text(self._clock(), self._stage))
        return Text(line, no_wrap=True, overflow="ellipsis")


@contextmanager
def list_progress(total: int | None, *, shown: bool) -> Iterator[ListProgress]:
    """The progress of a list of `total` entries, shown on stderr while inside; nothing is written unless `shown`.

    What is written to the terminal meanwhile is written inside `aside()`.
    """
    line = ListProgress(total)
    if not shown:
        yield line
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots", text=line)
    live = Live(
        spinner,
        console=Console(file=sys.stderr),
        transient=True,  # nothing of it stays behind
        refresh_per_second=REFRESH,
        redirect_stdout=False,  # stdout is the report's, and may not be a terminal
        redirect_stderr=False,
    )
    with live:
        line.live = live
        yield line
