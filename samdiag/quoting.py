"""Untrusted text made fit for one line of a message."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

LONGEST = 200  # characters: enough for any honest tensor name or path, too few to flood a terminal


def shown(text: object) -> str:
    """`text` on one line: as it is where printable, else escaped; shortened in the middle beyond 200 characters."""
    line = str(text)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]}…{line[-LONGEST // 2 :]}"
    return line if line.isprintable() else repr(line)[1:-1]


def quoted(value: object) -> str:
    """`value` as a literal with control characters escaped, shortened: how a value appears in a message."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST
    return shown(short.repr(value))


def listed(names: Iterable[object], num_shown: int = 5) -> str:
    """The first `num_shown` names and how many more there are: "a, b, c … (7 in all)"."""
    found = list(names)
    text = ", ".join(shown(name) for name in found[:num_shown])
    return text if len(found) <= num_shown else f"{text} … ({len(found)} in all)"
