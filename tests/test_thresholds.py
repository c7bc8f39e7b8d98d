"""Every number that a verdict compares with has its reason, and its row in docs/thresholds.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.clinic.sensitivity import MODULES, constants, page, set_to
from samdiag.verdicts import thresholds

PAGE = Path(__file__).parents[1] / "docs" / "thresholds.md"
EVERY = [(module, name) for module in MODULES for name in constants(module)]


@pytest.mark.parametrize(("module", "name"), EVERY, ids=[name for _, name in EVERY])
def test_a_threshold_has_its_reason_and_its_row(module: object, name: str) -> None:
    assert len(constants(module)[name]) > 10  # type: ignore[arg-type]
    assert f"| `{name}` | {getattr(module, name):.4g} |" in PAGE.read_text(encoding="utf-8")


def test_a_threshold_is_as_it_was_after_the_study() -> None:
    before = thresholds.PROGRESS
    with set_to(thresholds, "PROGRESS", 0.3):
        assert thresholds.PROGRESS == 0.3
    assert before == thresholds.PROGRESS


def test_the_page_shows_what_changes() -> None:
    row = {"name": "PROGRESS", "value": 0.1, "reason": "a | b", "scores": {"0.5": "1 / 0 / 0 / 0 / 0", "2": "same"}}
    text = page({"now": "same", "clinic": 3, "exact": 2, "quadratics": 1, "rows": [row]})
    assert "| `PROGRESS` | 0.1 | a \\| b | 1 / 0 / 0 / 0 / 0 | · |" in text
    assert "**same**" in text
