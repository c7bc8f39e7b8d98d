"""Beale's function: the numbers come from runs, and the quick ones are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samdiag.gallery import beale_experiment as beale
from samdiag.pictures import sheet

from .pictures import size_of


def test_the_threshold_of_usam_is_one_over_the_curvature() -> None:
    low, high = beale.curvature_at_saddle()
    assert (low, high) == pytest.approx((-27.75, 27.75))
    assert beale.usam_threshold(27.75, num_steps=1000) == pytest.approx(1 / 27.75, rel=2e-3)


def test_thresholds_follow_the_function_and_not_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = beale.gradient
    monkeypatch.setattr(beale, "gradient", lambda w: 1.01 * exact(w))
    assert beale.usam_threshold(27.75, num_steps=1000) == pytest.approx(1 / (1.01 * 27.75), rel=2e-3)


def test_growth_follows_the_step_and_the_number_of_steps() -> None:
    """exp(−N eta mu) with mu = −27.75(1 − 27.75 rho), at a start so near that it is linear."""
    starts = np.array(beale.SADDLE)[:, None] + 1e-6 * np.array([[1.0], [-1.0]])
    for lr, num_steps in ((1e-4, 400), (2e-4, 400), (1e-4, 800)):
        ends = beale.usam_ends(starts, [0.03], lr=lr, num_steps=num_steps)
        rate = 27.75 * (1 - 27.75 * 0.03)
        assert beale.growth(starts, ends)[0] == pytest.approx(num_steps * np.log1p(lr * rate), rel=1e-3)


def test_5000_steps_settle_which_way_sam_goes() -> None:
    low, high = beale.capture_threshold(num_steps=5000, rounds=2)
    assert beale.THRESHOLD[0] < low < high < beale.THRESHOLD[1] + 2e-4


def test_the_trap_of_rho_one_half_and_its_cosine() -> None:
    seen = beale.trace((0.0, 0.1, 0.5), num_steps=4000)
    assert beale.end_of(seen.points[0.5][-1]) == "saddle"
    assert {beale.end_of(seen.points[rho][-1]) for rho in (0.0, 0.1)} == {"elsewhere"}
    assert seen.points[0.0][-1][0] > 1.5  # on its way to (3, 0.5)
    row = beale._cosine_row(seen.cosines[0.5])
    assert row.agrees, row
    assert not beale._cosine_row(seen.cosines[0.1]).agrees


def test_ends_in_words() -> None:
    points = [(2.95, 0.48), (0.01, 1.0), (9.0, 9.0), (np.nan, 0.0)]
    assert [beale.end_of(np.array(p)) for p in points] == ["minimum", "saddle", "elsewhere", "diverges"]


def test_the_picture(tmp_path: Path) -> None:
    seen = beale.trace((0.0, 0.1, 0.5), num_steps=3100)
    for name in ("a.png", "b.png"):
        with sheet(tmp_path / name, title="Beale") as drawn:
            beale._draw(drawn, seen)
    width, height = size_of(tmp_path / "a.png")
    assert min(width, height) > 600
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.slow
def test_everything_agrees(tmp_path: Path) -> None:
    outcome = beale.perform(tmp_path, 0, lambda _line: None)
    assert [row for row in outcome.rows if not row.agrees] == []
    assert all(path.is_file() for path in (*outcome.pictures, *outcome.checkpoints))
