"""What was done to a model for the time of a measurement, so that a report can say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_remarks: ContextVar[dict[str, None] | None] = ContextVar("remarks", default=None)


@contextmanager
def remarks() -> Iterator[dict[str, None]]:
    """Collects what is said inside, once each and in order; an outer collection hears of it too."""
    outer = _remarks.get()
    own: dict[str, None] = {} if outer is None else outer
    token = _remarks.set(own)
    try:
        yield own
    finally:
        _remarks.reset(token)


def say(text: str) -> None:
    """Notes one line for the report; without a collection it is dropped."""
    own = _remarks.get()
    if own is not None:
        own[text] = None
