"""Ctrl-C: the first one asks for what can still be had, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from samdiag.cli.streams import say
from samdiag.patience import Patience


@contextmanager
def interruptible(patience: Patience) -> Iterator[None]:
    """Inside, the first Ctrl-C during a stage that can stop with an answer is noted in `patience`; any other raises
    KeyboardInterrupt as ever.
    """
    said = "samdiag: interrupted; finishing with what is known (Ctrl-C again to stop at once)"
    with _answering(patience.interrupt, said):
        yield


class Finishing:
    """Whether a list is to end after the checkpoint in hand."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.asked

    @contextmanager
    def on_ctrl_c(self) -> Iterator[None]:
        """Inside, the first Ctrl-C is remembered, and the next one raises KeyboardInterrupt."""
        said = "samdiag: interrupted; the checkpoint in hand is finished first (Ctrl-C again to stop at once)"
        with _answering(self._ask, said), _ending_on_sigterm():
            yield

    def _ask(self) -> bool:
        first, self.asked = not self.asked, True
        return first


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM (a cancelled or preempted job) ends at once as a second Ctrl-C does, and reports are written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _answering(note: Callable[[], bool], said: str) -> Iterator[None]:
    """Inside, a Ctrl-C that `note` takes up is answered by a line; one that it does not raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if not note():
            raise KeyboardInterrupt
        say(said)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
