"""Two diagnoses in the terminal and as Markdown."""

from __future__ import annotations

import dataclasses

import pytest

from samdiag.comparing import Diff, diff
from samdiag.reports.diff_text import digest, render, render_markdown
from samdiag.types import CheckpointInfo
from tests.reports.samples import HOSTILE_TEXT, diagnosis, est, failed, finding, hostile, measurements, settings
from tests.reports.snapshot import matches
from tests.test_comparing import at


@pytest.fixture
def found() -> Diff:
    other = settings()
    other["sam.rho"] = dataclasses.replace(other["sam.rho"], value=0.1)
    after = at(
        "runs/b.pt",
        step=9,
        verdict="bounce",
        settings=other,
        measurements=measurements(lambda_max=est(12.0, 0.02, 0.21), loss=est(1.21, 0.0, 0.01), quadratic_error=None),
        findings=(finding("bounce"),),
    )
    return diff([at("runs/a.pt", step=3)], [after])


def test_a_pair_is_tables_of_texts(found: Diff) -> None:
    page = digest(found.pairs[0])
    assert page.headline == "verdict saddle-attraction → bounce"
    assert page.settings == (("sam.rho", "0.5", "0.1"),)
    assert page.findings == ("− saddle-attraction: was error, high confidence", "+ bounce: warning, high confidence")
    tables = {table.title: {row[0]: row[1:] for row in table.rows} for table in page.tables}
    changed = tables["Changed beyond both error bars"]
    assert changed == {"lambda_max": ("9.42 ± 0.44", "12.00 ± 0.44", "2.58 ± 0.63", "8.1")}
    assert "loss" in tables["Not changed"]
    assert "effective_radius" in tables["Without (complete) error bars"]
    assert tables["Measured on one side only"]["quadratic_error"][1] == "not measured"


def test_settings_that_differ_come_before_the_numbers(found: Diff) -> None:
    for text in (render(found, color=False), render_markdown(found)):
        assert text.index("not comparable") < text.index("Changed beyond")


def test_the_text_is_as_it_was(found: Diff) -> None:
    assert matches("diff.txt", render(found, width=100, color=False))


def test_the_markdown_is_as_it_was(found: Diff) -> None:
    assert matches("diff.md", render_markdown(found))


def test_many_pairs_are_a_line_each() -> None:
    before = [at("a.pt", step=1), at("b.pt", step=2), at("c.pt", step=3)]
    worse = at("b.pt", step=2, verdict="minimum", measurements=measurements(lambda_max=est(99.0, 0.0, 0.0)))
    broken = failed(checkpoint=CheckpointInfo(path="a.pt", step=1), settings=before[0].settings)
    text = render(diff(before, [broken, worse, at("d.pt")]), color=False, width=120)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "2 of 2 checkpoints differ (matched by path)"
    assert "b.pt (step 2) saddle-attraction → minimum lambda_max ↑" in lines
    assert any(line.startswith("a.pt (step 1) saddle-attraction → failed") for line in lines)
    assert "only before: c.pt (step 3)" in lines
    assert "only after: d.pt" in lines


def test_nothing_escapes() -> None:
    page = diff([diagnosis()], [hostile()])
    many = diff([hostile(), at("a.pt")], [hostile(), at(HOSTILE_TEXT)])
    for text in (render(page, color=False), render_markdown(page), render(many, color=False), render_markdown(many)):
        assert not any(character in text for character in "\x1b\x07\r\u202e\u2028\udcff")


@pytest.mark.parametrize("width", [40, 80])
def test_lines_keep_to_the_width(found: Diff, width: int) -> None:
    assert max(map(len, render(found, width=width, color=False).splitlines())) <= width
