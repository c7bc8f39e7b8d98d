"""The two ends of the Hessian's spectrum on one line through zero: the model, its axis, and the drawn cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from samdiag.reports.numbers import estimate_line, number
from samdiag.reports.rows import MarkKind, SpectrumMark, SpectrumModel
from samdiag.types import Measurements

LINEAR_UP_TO = 12.0  # largest : smallest marked magnitude; beyond it the small end of a linear axis is under 5 columns
DYNAMIC_RANGE = 1e4  # magnitudes below largest/1e4 are drawn at zero: they cannot matter beside it
LONGEST_BAR = 10.0  # times the largest mark: an error bar beyond it would squeeze everything else into one column
THRESHOLD_REACH = 3.0  # a threshold up to 3 times beyond the largest eigenvalue still leaves the ends readable
MARGIN = 0.03  # of the axis, so that an end mark does not sit on the border

_SYMBOLS = {
    MarkKind.BOTTOM: ("◆", "bold"),
    MarkKind.INNER: ("•", ""),
    MarkKind.THRESHOLD: ("▼", "red"),
    MarkKind.ZERO: ("┼", "bold"),
    MarkKind.TOP: ("◆", "bold"),
}


@dataclass(frozen=True, slots=True)
class Cells:
    """A drawn line: its characters and a Rich style for each."""

    characters: str
    styles: tuple[str, ...]


def spectrum_model(m: Measurements) -> SpectrumModel | None:
    """The marks of `m`'s spectrum from left to right; None when no end was measured."""
    ends = _ends(m)
    if not ends:
        return None
    largest = max(abs(mark.value) for mark in ends)
    threshold, notes = _threshold(m, largest)
    inner = [SpectrumMark(kind=MarkKind.INNER, value=value) for value in _inner(m, ends)]
    marks = [*inner, SpectrumMark(kind=MarkKind.ZERO, value=0.0, label="0"), *threshold, *ends]
    return SpectrumModel(
        marks=tuple(sorted(marks, key=lambda mark: mark.value)),
        linear_within=_linear_within([abs(mark.value) for mark in (*ends, *threshold)]),
        notes=notes,
    )


def columns(model: SpectrumModel, width: int) -> list[tuple[int, int, int]]:
    """Per mark the columns (low end of the error bar, value, high end) on a line of `width` columns."""
    unit = max(abs(mark.value) for mark in model.marks) or 1.0  # keeps the sums below finite
    places = [_places(mark, unit, None if (c := model.linear_within) is None else c / unit) for mark in model.marks]
    left = min(min(place) for place in places)
    right = max(max(place) for place in places)
    margin = MARGIN * ((right - left) or 1.0)
    step = (right - left + 2 * margin) / max(1, width - 1)
    spots = (tuple(round((value - left + margin) / step) for value in place) for place in places)
    return [(low, middle, high) for low, middle, high in spots]


def draw_axis(model: SpectrumModel, width: int) -> Cells:
    """The axis `─`, doubled `═` where SAM reverses it, error bars `┣━◆━┫`, `▼` the threshold, `┼` zero."""
    spots = columns(model, width)
    border = next(
        (spot[1] for mark, spot in zip(model.marks, spots, strict=True) if mark.kind is MarkKind.THRESHOLD), 0
    )
    cells = [("═", "red") if column < border else ("─", "dim") for column in range(width)]
    for (low, _, high), mark in zip(spots, model.marks, strict=True):
        if mark.spread and high - low >= 2:  # a bar shorter than its mark is no bar
            cells[low : high + 1] = [("━", "bold")] * (high + 1 - low)
            cells[low], cells[high] = ("┣", "bold"), ("┫", "bold")
    for kind in (MarkKind.INNER, MarkKind.ZERO, MarkKind.THRESHOLD, MarkKind.BOTTOM, MarkKind.TOP):  # last one wins
        for (_, column, _), mark in zip(spots, model.marks, strict=True):
            if mark.kind is kind:
                cells[column] = _SYMBOLS[kind]
    return Cells("".join(character for character, _ in cells), tuple(style for _, style in cells))


def draw_labels(model: SpectrumModel, width: int, kinds: Sequence[MarkKind]) -> str:
    """One line with the labels of the marks of `kinds`, each under its mark or as near as the others allow."""
    wanted = [
        (spot[1], mark.label)
        for mark, spot in zip(model.marks, columns(model, width), strict=True)
        if mark.kind in kinds and mark.label
    ]
    starts: list[int] = []
    end = -2
    for column, label in wanted:  # push right past the previous label …
        starts.append(max(column - len(label) // 2, end + 2, 0))
        end = starts[-1] + len(label)
    limit = width
    for index in reversed(range(len(wanted))):  # … and back left from the border
        starts[index] = max(0, min(starts[index], limit - len(wanted[index][1])))
        limit = starts[index] - 2
    line = ""
    for start, (_, label) in zip(starts, wanted, strict=True):
        line = (f"{line}  " if line else "").ljust(start) + label
    return line


def _ends(m: Measurements) -> list[SpectrumMark]:
    ends = ((MarkKind.BOTTOM, "λ_min", m.lambda_min), (MarkKind.TOP, "λ_max", m.lambda_max))
    return [
        SpectrumMark(kind=kind, value=end.value, spread=end.spread(), label=f"{name} {estimate_line(end)}")
        for kind, name, end in ends
        if end.value is not None and math.isfinite(end.value)
    ]


def _inner(m: Measurements, ends: Sequence[SpectrumMark]) -> list[float]:
    """The other eigenvalues that were found; those outside the two ends, by rounding, are left out."""
    low = next((mark.value for mark in ends if mark.kind is MarkKind.BOTTOM), -math.inf)
    high = next((mark.value for mark in ends if mark.kind is MarkKind.TOP), math.inf)
    found = (item.value for item in (*m.bottom_eigenvalues, *m.top_eigenvalues))
    return [value for value in found if value is not None and low < value < high]


def _threshold(m: Measurements, largest: float) -> tuple[list[SpectrumMark], tuple[str, ...]]:
    """The capture threshold −1/rho_eff as a mark, or as a note when it is off the axis; nothing without a saddle."""
    if not m.lambda_min.known or m.lambda_min.low >= 0 or not m.effective_radius > 0:
        return [], ()
    if math.isinf(m.effective_radius):
        return [], ("ρ_eff is infinite: SAM reverses every direction left of 0",)
    value = -1 / m.effective_radius
    if math.isinf(value) or -value > THRESHOLD_REACH * largest:
        says = "SAM reverses no direction here" if m.lambda_min.low > value else "whether SAM reverses one is not known"
        return [], (f"−1/ρ_eff = {number(value)} is far to the left: {says}",)
    label = f"−1/ρ_eff {number(value)}"
    return [SpectrumMark(kind=MarkKind.THRESHOLD, value=value, label=label)], ()


def _linear_within(magnitudes: Sequence[float]) -> float | None:
    largest = max(magnitudes)
    smallest = max(min((size for size in magnitudes if size > 0), default=largest), largest / DYNAMIC_RANGE)
    return smallest if largest > LINEAR_UP_TO * smallest else None


def _places(mark: SpectrumMark, unit: float, linear_within: float | None) -> tuple[float, float, float]:
    """Places of the error bar's low end, the value and the high end on the axis; `linear_within` counts in `unit`s.

    An unbounded error is drawn as large as the value itself; the label has the ∞.
    """
    value = mark.value / unit
    bar = min(mark.spread / unit, LONGEST_BAR) if math.isfinite(mark.spread) else abs(value)
    low, middle, high = (
        place if linear_within is None else math.asinh(place / linear_within)
        for place in (value - bar, value, value + bar)
    )
    return low, middle, high
