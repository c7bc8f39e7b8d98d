"""The first Ctrl-C asks for the best answer so far, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from samdiag.cli.streams import say
from samdiag.patience import Patience


@contextmanager
def interruptible(patience: Patience) -> Iterator[None]:
    """Inside, the first Ctrl-C during a stage that can stop with an answer is noted in `patience`; any other raises
    KeyboardInterrupt as ever.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if not patience.interrupt():
            raise KeyboardInterrupt
        say("samdiag: interrupted; finishing with what is known (Ctrl-C again to stop at once)")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
