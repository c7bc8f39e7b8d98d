"""x² − y²: every row comes from a run of its own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from samdiag.gallery import saddle_experiment as saddle
from samdiag.gallery.dynamics import quadratic
from samdiag.theory.edge import bounce_amplitude

from .pictures import size_of


def test_the_thresholds() -> None:
    assert saddle.usam_threshold(num_steps=200) == pytest.approx(0.5, rel=1e-9)
    assert saddle.capture_threshold(rounds=2) == pytest.approx(0.0948, abs=3e-4)


def test_another_saddle_has_another_threshold_and_the_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saddle, "gradient", quadratic((2.0, -2.1)))
    assert saddle.usam_threshold(num_steps=200) == pytest.approx(1 / 2.1, rel=1e-9)
    rows = {row.quantity: row.agrees for row in saddle._usam_rows()}
    assert not any(rows.values()), rows


def test_the_residual_follows_the_learning_rate() -> None:
    for lr in (0.01, 0.02):
        residual = abs(float(saddle.end(0.5, lr=lr)[0]))
        assert residual == pytest.approx(bounce_amplitude(2.0, 0.5, lr, 0.0), rel=1e-9)


def test_time_to_leave_in_closed_form() -> None:
    taken = saddle.escape_steps(np.array([0.0, 0.2, 0.45, 0.51]), variant="usam", num_steps=3000)
    assert taken[:3].tolist() == [saddle.usam_escape_steps(rho) for rho in (0.0, 0.2, 0.45)]
    assert math.isnan(taken[3])


@pytest.mark.parametrize("dimensions", [2, 5])
def test_the_critical_batch_size_of_isotropic_noise(dimensions: int) -> None:
    expected = saddle.exact_critical_batch_size(dimensions)
    found = saddle.batch_sizes(dimensions, expected, np.random.default_rng(3), runs=400)
    assert found.threshold == pytest.approx(expected, abs=4 * found.threshold_error + 0.01 * expected)
    assert found.threshold_error < 0.02 * expected
    assert found.rates[0] > 0 > found.rates[-1]


def test_the_exact_constant_is_the_mean_that_theory_names() -> None:
    """E[(1 − (u·q)²)/|n|] by sampling, in three dimensions."""
    n = np.random.default_rng(0).standard_normal((3, 400_000))
    norm = np.linalg.norm(n, axis=0)
    k = float(((1 - (n[1] / norm) ** 2) / norm).mean())
    assert saddle.exact_critical_batch_size(3, rho=0.5, lam=-2.0) == pytest.approx(1 / k**2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_everything_agrees(tmp_path: Path, seed: int) -> None:
    outcome = saddle.perform(tmp_path, seed, lambda _line: None)
    assert [row for row in outcome.rows if not row.agrees] == []
    assert min(size_of(outcome.pictures[0])) > 600
    assert all(path.is_file() for path in outcome.checkpoints)
