from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.reports.rows import MarkKind, SpectrumModel
from samdiag.reports.spectrum import columns, draw_axis, draw_labels, spectrum_model
from samdiag.types import UNKNOWN

from .samples import est, measurements

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def model(low: float, high: float, radius: float = 0.0, error: float = 0.0) -> SpectrumModel:
    m = measurements(
        lambda_min=est(low, error),
        lambda_max=est(high, error),
        effective_radius=radius,
        top_eigenvalues=(),
        bottom_eigenvalues=(),
    )
    result = spectrum_model(m)
    assert result is not None
    return result


def test_nothing_to_draw_without_an_eigenvalue() -> None:
    assert spectrum_model(measurements(lambda_min=UNKNOWN, lambda_max=UNKNOWN)) is None


def test_one_end_is_enough() -> None:
    drawn = spectrum_model(measurements(lambda_min=UNKNOWN))
    assert drawn is not None
    inner = MarkKind.INNER
    assert [mark.kind for mark in drawn.marks] == [inner, inner, MarkKind.ZERO, inner, inner, MarkKind.TOP]


def test_marks_lie_from_left_to_right_with_zero_between() -> None:
    drawn = model(-2.0, 9.0, radius=1.0)
    assert [mark.kind for mark in drawn.marks] == [
        MarkKind.BOTTOM,
        MarkKind.THRESHOLD,
        MarkKind.ZERO,
        MarkKind.TOP,
    ]
    places = [place for _, place, _ in columns(drawn, 80)]
    assert places == sorted(places)


@pytest.mark.parametrize(("high", "linear"), [(2.0, True), (11.0, True), (13.0, False), (1e6, False)])
def test_scale_is_symlog_when_the_ends_are_far_apart(high: float, linear: bool) -> None:
    drawn = model(-1.0, high)
    assert (drawn.linear_within is None) is linear
    assert drawn.scale.startswith("linear" if linear else "symlog")


@pytest.mark.parametrize(
    ("radius", "drawn", "note"),
    [
        (1.0, True, None),
        (1e-3, False, "−1/ρ_eff = −1000 is far to the left: SAM reverses no direction here"),
        (math.inf, False, "ρ_eff is infinite: SAM reverses every direction left of 0"),
        (0.0, False, None),
    ],
)
def test_threshold_is_a_mark_or_a_note(radius: float, drawn: bool, note: str | None) -> None:
    result = model(-2.0, 9.0, radius=radius)
    assert (result.mark(MarkKind.THRESHOLD) is not None) is drawn
    assert result.notes == (() if note is None else (note,))


def test_no_threshold_without_a_negative_eigenvalue() -> None:
    assert model(0.5, 9.0, radius=1.0).mark(MarkKind.THRESHOLD) is None


def test_linear_places_are_in_proportion() -> None:
    drawn = model(-1.0, 1.0)
    assert [place for _, place, _ in columns(drawn, 101)] == [3, 50, 97]


def test_axis_shows_error_bars_and_the_reversed_part() -> None:
    axis = draw_axis(model(-2.0, 4.0, radius=1.0, error=0.5), 61).characters
    assert axis.count("┣") == axis.count("┫") == axis.count("◆") // 1 == 2
    threshold = axis.index("▼")
    assert "═" in axis[:threshold]
    assert "═" not in axis[threshold:]
    assert axis.index("◆") < threshold < axis.index("┼") < axis.rindex("◆")


def test_labels_keep_their_order_and_do_not_touch() -> None:
    line = draw_labels(model(2.0, 2.1), 60, (MarkKind.BOTTOM, MarkKind.TOP))
    assert line.strip() == "λ_min 2  λ_max 2.1"
    assert len(line) <= 60


@given(FINITE, FINITE, st.floats(min_value=0), st.floats(min_value=0), st.integers(40, 200))
def test_any_spectrum_is_drawn_within_the_width(
    one: float, other: float, radius: float, error: float, width: int
) -> None:
    drawn = model(min(one, other), max(one, other), radius, error)
    assert all(0 <= low <= place <= high < width for low, place, high in columns(drawn, width))
    assert len(draw_axis(drawn, width).characters) == width
