"""The edge of stability: it runs in two seconds, so that all of it is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samdiag.gallery import edge_experiment as edge
from samdiag.theory.edge import bounce_amplitude

from .pictures import size_of


def test_everything_agrees(tmp_path: Path) -> None:
    outcome = edge.perform(tmp_path, 0, lambda _line: None)
    assert [row for row in outcome.rows if not row.agrees] == []
    assert min(size_of(outcome.pictures[0])) > 600
    assert [path.name for path in outcome.checkpoints] == [
        "bounce.safetensors",
        "before-decay.safetensors",
        "after-decay.safetensors",
    ]


def test_the_bounce_follows_the_learning_rate_and_the_radius() -> None:
    for lr, rho in ((0.05, 0.1), (0.04, 0.1), (0.05, 0.3)):
        assert edge.bounce(lr, 0.0, rho=rho).amplitude == pytest.approx(bounce_amplitude(10.0, rho, lr, 0.0), rel=1e-9)


def test_a_wrong_simulation_shows_in_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    right = edge.bounce
    monkeypatch.setattr(edge, "bounce", lambda lr, momentum, **more: right(1.01 * lr, momentum, **more))
    assert not any(row.agrees for row in edge._bounce_rows())
    honest = edge.growth
    monkeypatch.setattr(edge, "growth", lambda top, low, rho, lr, momentum: honest(top, low, rho, 1.01 * lr, momentum))
    assert not any(row.agrees for row in edge._decay_rows())


def test_learning_rate_decay_turns_the_direction_round() -> None:
    away = np.abs(edge.decayed_run(decay=False)[:, 1])
    back = np.abs(edge.decayed_run(decay=True)[:, 1])
    assert away[-1] > 1e3
    assert back[edge.DECAY_AT - 1] > 1e3 * back[0]
    assert back[-1] < 1e-3 * back[edge.DECAY_AT - 1]


def test_ravines_of_another_seed() -> None:
    for momentum in (0.0, 0.5):
        judged = edge.ravines(np.random.default_rng(11), momentum, count=100)
        assert (judged.captured == judged.expected).all()
        assert 0.1 < judged.captured.mean() < 0.9
