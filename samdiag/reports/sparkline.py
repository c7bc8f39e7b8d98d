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
    logarithmic = (low > 0 or high < 0) and abs(math.log10(abs(high)) - math.log10(abs(low))) >= DECADES
    ends = [_height(end, low, high, logarithmic) for end in (low, high)]
    heights = [
        None if value is None or math.isnan(value) else _height(value, low, high, logarithmic) for value in values
    ]
    marks = ASCII if ascii else BLOCKS
    text = "".join(
        GAP if height is None else marks[_level(height, *ends, count=len(marks))] for height in _at_most(heights, width)
    )
    return Sparkline(text=text, low=low, high=high, logarithmic=logarithmic)


def _height(value: float, low: float, high: float, logarithmic: bool) -> float:
    """A number on the scale that is drawn, where it grows with the value; halved, as a difference may overflow."""
    within = min(max(value, low), high)
    if not logarithmic:
        return within / 2
    return math.log10(within) if low > 0 else -math.log10(-within)


def _at_most(heights: Sequence[float | None], width: int) -> Sequence[float | None]:
    """As many heights as there is room for."""
    if len(heights) <= width:
        return heights
    middle = statistics.median(one for one in heights if one is not None)
    edges = [index * len(heights) // width for index in range(width + 1)]
    parts = (heights[begin:end] for begin, end in itertools.pairwise(edges))
    return [
        max((one for one in part if one is not None), key=lambda one: abs(one - middle), default=None) for part in parts
    ]


def _level(height: float, low: float, high: float, *, count: int) -> int:
    """Which mark, from 0 on; all are in the middle where all are equally high."""
    if high <= low:
        return count // 2 - 1
    return min(count - 1, int((height - low) / (high - low) * count))
