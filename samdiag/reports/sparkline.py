"""A row of numbers as a row of characters of different height."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-~=+*#"  # of growing weight, where the terminal has no blocks
GAP = " "
DECADES = 1.5  # spanned from which on a linear scale would show the largest values and nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """The characters, and what their lowest and highest stand for.

    Attributes:
        text: one character per number, a blank where there is none.
        low, high: the smallest and largest finite number; None where there is none.
        logarithmic: whether equal steps in height are equal factors.
    """

    text: str
    low: float | None
    high: float | None
    logarithmic: bool = False


def sparkline(values: Sequence[float | None], *, width: int = 60, ascii: bool = False) -> Sparkline:
    """The numbers as at most `width` characters.

    Where there are more numbers than characters, each stands for neighbours and shows the one farthest from the median
    of all, so that no peak is lost. An infinite value has the height of the largest (or smallest).

    Args:
        values: in order; None or NaN leaves a gap.
        width: in characters.
        ascii: no blocks.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return Sparkline(text="".join(GAP for _ in values[:width]), low=None, high=None)
    low, high = min(known), max(known)
    logarithmic = low * high > 0 and abs(math.log10(high / low)) >= DECADES
    marks = ASCII if ascii else BLOCKS
    middle = statistics.median(known)
    text = "".join(
        GAP if value is None else marks[_level(value, low, high, len(marks), logarithmic)]
        for value in _at_most(values, width, middle)
    )
    return Sparkline(text=text, low=low, high=high, logarithmic=logarithmic)


def _at_most(values: Sequence[float | None], width: int, middle: float) -> list[float | None]:
    """As many values as there is room for."""
    cleaned = [None if value is None or math.isnan(value) else value for value in values]
    if len(cleaned) <= width:
        return cleaned
    edges = [index * len(cleaned) // width for index in range(width + 1)]
    parts = (cleaned[begin:end] for begin, end in itertools.pairwise(edges))
    return [_farthest(part, middle) for part in parts]


def _farthest(part: Sequence[float | None], middle: float) -> float | None:
    known = [value for value in part if value is not None]
    return max(known, key=lambda value: abs(value - middle)) if known else None


def _level(value: float, low: float, high: float, count: int, logarithmic: bool) -> int:
    """Which mark, from 0 on; all are in the middle where all values are equal."""
    if high == low:
        return count // 2 - 1
    value = min(max(value, low), high)
    share = math.log(value / low) / math.log(high / low) if logarithmic else _share(value, low, high)
    return min(count - 1, max(0, int(share * count)))


def _share(value: float, low: float, high: float) -> float:
    """How far `value` lies from `low` to `high`, halved before it is subtracted: the difference may overflow."""
    return (value / 2 - low / 2) / (high / 2 - low / 2)
