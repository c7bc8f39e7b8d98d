"""A trend in the terminal and as Markdown: numbers with errors, arrows, and nothing that escapes."""

from __future__ import annotations

import pytest

from samdiag.reports.trend_text import digest, render, render_markdown
from samdiag.trends import Trend, trend_of
from samdiag.types import CheckpointInfo, Diagnosis
from tests.reports.samples import HOSTILE_TEXT, est, failed, measurements
from tests.reports.snapshot import matches
from tests.test_comparing import at


def point(step: int, value: float, verdict: str, **changes: object) -> Diagnosis:
    measured = measurements(lambda_max=est(value, 0.01, 0.02), lambda_min=est(-value / 1000**step, 0.0, 0.0))
    return at(f"run/step-{step}.pt", step=step, measurements=measured, verdict=verdict, **changes)


@pytest.fixture
def trend() -> Trend:
    broken = failed(checkpoint=CheckpointInfo(path="run/step-2.pt", step=2))
    return trend_of(
        [point(0, 2.0, "descending"), point(1, 5.0, "descending"), broken, point(3, 1.0, "saddle-attraction")],
        ["lambda_max", "lambda_min", "loss"],
    )


def test_a_run_is_rows_of_texts(trend: Trend) -> None:
    (table,) = digest(trend)
    assert [line.where for line in table.lines] == ["0", "1", "2", "3"]
    assert [line.cells[0] for line in table.lines] == ["2.000 ± 0.050", "5.000 ± 0.050 ↑", "–", "1.000 ± 0.050 ↓"]
    assert [line.new for line in table.lines] == [False, False, False, True]
    assert table.verdicts == ("descending from step 0 on", "saddle-attraction from step 3 on")
    assert [(spark.picture, spark.span) for spark in table.sparks[:1]] == [("▃█ ▁", "1 … 5")]
    assert table.sparks[0].words == "falls (1 up, 1 down)"
    assert table.sparks[1].words == "rises, log scale"
    assert table.sparks[2].words == "no change over all beyond the error bars"


def test_the_text_is_as_it_was(trend: Trend) -> None:
    assert matches("trend.txt", render(trend, width=100, color=False))


def test_the_markdown_is_as_it_was(trend: Trend) -> None:
    assert matches("trend.md", render_markdown(trend))


def test_seeds_are_shown_as_a_span() -> None:
    found = trend_of([point(1, value, "bounce", seed=seed) for seed, value in enumerate((1.0, 2.0))], ["lambda_max"])
    assert digest(found)[0].lines[0].cells == ("1 … 2",)
    assert "of several seeds" in render(found)


def test_a_terminal_without_blocks_gets_plain_characters(trend: Trend) -> None:
    text = render(trend, color=False, ascii=True)
    assert text.isascii()
    assert "5.000 +/- 0.050 ^" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_number_is_cut_and_no_line_is_too_long(trend: Trend, width: int) -> None:
    text = render(trend, width=width, color=False)
    assert max(map(len, text.splitlines())) <= width
    for number in ("5.000 ± 0.050 ↑", "1.000 ± 0.050 ↓"):
        assert number in text


def test_colour_is_only_where_it_is_wanted(trend: Trend) -> None:
    assert "\x1b[" in render(trend, color=True)
    assert "\x1b" not in render(trend, color=False)


def test_what_comes_from_a_checkpoint_is_harmless() -> None:
    info = CheckpointInfo(path=f"{HOSTILE_TEXT}/x/{HOSTILE_TEXT}")
    found = trend_of([at("", checkpoint=info, verdict=HOSTILE_TEXT), at("", checkpoint=info, verdict="x", seed=3)])
    for text in (render(found, color=False), render_markdown(found)):
        assert not any(character in text for character in "\x1b\x07\r\u202e\u2028\udcff")


def test_no_records_are_no_crash() -> None:
    assert render(trend_of([])) is not None
    assert render_markdown(trend_of([])) is not None
