from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.reports.numbers import count, estimate, interval, number, seconds, with_error
from samdiag.types import UNKNOWN, Estimate

NONNEGATIVE = st.floats(min_value=0) | st.just(math.nan)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.05"),
        (-27.75, "−27.75"),
        (1.23456, "1.235"),
        (123456.7, "123457"),
        (1.2345e-5, "1.234e-5"),
        (-3e12, "−3e12"),
        (9.9999e-4, "1e-3"),
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "4.941e-324"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "not a number"),
        (None, "not measured"),
        (1024, "1024"),
        (-3, "−3"),
        pytest.param(10**5000, "an integer of 16610 bits", id="huge"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "error", "texts"),
    [
        (1.2034, 0.0224, ("1.203", "± 0.022")),
        (-2.3149, 0.0412, ("−2.315", "± 0.041")),
        (0.001, 0.5, ("0.00", "± 0.50")),
        (-0.001, 0.5, ("0.00", "± 0.50")),
        (27.75, 3.1e-13, ("27.75", "± 3.1e-13")),
        (4.2e-7, 1.3e-8, ("4.20e-7", "± 0.13e-7")),
        (31234.0, 1200.0, ("31234", "± 1200")),
        (3.0, 0.0, ("3", "")),
        (3.0, math.inf, ("3", "± ∞")),
        (math.inf, 1.0, ("∞", "")),
    ],
)
def test_value_and_error_end_at_the_same_decimal(value: float, error: float, texts: tuple[str, str]) -> None:
    assert with_error(value, error) == texts


def test_error_combines_the_numerical_bound_and_two_standard_errors() -> None:
    assert estimate(Estimate(value=1.0, error=0.1, sampling_error=0.2)) == ("1.00", "± 0.50")


@pytest.mark.parametrize("missing", [UNKNOWN, Estimate(value=math.nan)])
def test_an_unknown_estimate_is_not_measured(missing: Estimate) -> None:
    assert estimate(missing) == ("not measured", "")


@given(st.floats(), NONNEGATIVE)
def test_any_float_is_written_in_a_few_characters(value: float, error: float) -> None:
    for text in (number(value), *with_error(value, error)):
        assert len(text) <= 20
        assert "e+" not in text


@given(st.floats(min_value=-1e308, max_value=1e308))
def test_a_written_number_is_the_value_to_four_digits(value: float) -> None:
    assert float(number(value).replace("−", "-")) == pytest.approx(value, rel=6e-4, abs=1e-323)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0.0, 0.036), "≤ 0.036"),
        ((8.0, math.inf), "≥ 8"),
        ((0.0, math.inf), "any"),
        ((-math.inf, math.inf), "any"),
        ((0.1, 0.3), "0.1 … 0.3"),
        ((0.3, 0.1), "no value"),
        ((0.3, 0.3), "0.3"),
        (None, ""),
    ],
)
def test_interval(bounds: tuple[float, float] | None, text: str) -> None:
    assert interval(bounds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (50_000, "50000"), (123_456, "123 k"), (11_173_962, "11.2 M"), (7 * 10**9, "7 G")]
)
def test_count(value: int, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (0.123, "0.12 s"), (38.4, "38 s"), (200.0, "3 min 20 s"), (3725.0, "1 h 2 min"), (math.inf, "∞ s")],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text
