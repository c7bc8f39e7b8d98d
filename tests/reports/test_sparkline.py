"""Numbers as characters of different height."""

from __future__ import annotations

import math

import pytest

from samdiag.reports.sparkline import ASCII, BLOCKS, sparkline


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], BLOCKS),
        ([7, 0], "█▁"),
        ([1, None, 8], "▁ █"),
        ([1, math.nan, 8], "▁ █"),
        ([5, 5], "▄▄"),
        ([None, None], "  "),
        ([], ""),
        ([-math.inf, 0, 1, math.inf], "▁▁██"),
        ([math.inf], " "),
        ([5e-324, 1e308], "▁█"),
        ([-5e-324, 0.0, 5e-324], "▄▄▄"),
        ([-1e308, 1e308], "▁█"),
    ],
)
def test_height_follows_the_value(values: list[float | None], text: str) -> None:
    drawn = sparkline(values)
    assert drawn.text == text or (values == [math.inf] and drawn.low is None)


def test_ascii_has_no_blocks() -> None:
    assert sparkline(range(8), ascii=True).text == ASCII
    assert ASCII.isascii()


def test_decades_are_drawn_by_their_logarithm() -> None:
    drawn = sparkline([1e-8, 1e-4, 1.0])
    assert drawn.logarithmic
    assert drawn.text == "▁▅█"
    assert sparkline([-1e-8, -1e-5, -1.0]).text == "█▆▁"
    assert not sparkline([-1.0, 1e-4]).logarithmic
    assert not sparkline([1.0, 20.0]).logarithmic


def test_the_ends_are_told() -> None:
    drawn = sparkline([3, None, -2, math.inf])
    assert (drawn.low, drawn.high) == (-2, 3)


def test_no_peak_is_lost_where_there_is_no_room() -> None:
    values = [0.0] * 1000
    values[437] = 5.0
    drawn = sparkline(values, width=20)
    assert len(drawn.text) == 20
    assert drawn.text.count("█") == 1
    assert drawn.text.index("█") == 8


def test_on_a_logarithmic_scale_a_fall_by_decades_is_a_peak_too() -> None:
    values = [1.0] * 100
    values[50] = 1e-6
    values[70] = 2.0
    assert sparkline(values, width=10).text == "█████▁████"
