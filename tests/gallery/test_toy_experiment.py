"""The toy network: shares of stuck runs against the integral, and the line of saddles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samdiag.gallery import toy_experiment as toy
from samdiag.gallery.separatrix import captured_share

from .pictures import size_of


def test_shares_follow_the_radius() -> None:
    rhos, count = (0.0, 0.05, 0.2, 0.5), 200
    found = toy.ends(rhos, 7, num_steps=700, count=count)
    for j, rho in enumerate(rhos):
        stuck = toy.Stuck(rho=rho, count=int(toy.is_stuck(found[:, j]).sum()), runs=count)
        assert stuck.share == pytest.approx(captured_share(rho, toy.SPREAD), abs=3.5 * stuck.error + 0.01)


def test_the_share_depends_on_the_spread_of_the_start_and_not_on_the_curvature() -> None:
    """Twice the targets' scale is twice the curvature: the same runs are stuck, but for a few at the boundary."""
    x, y = toy.data("tanh")
    first = toy.starts(0, 300)
    ends = [
        toy.run(toy.gradient("tanh", x, scale * y), first, rho=0.1, lr=0.02 / scale, num_steps=1500)
        for scale in (1.0, 2.0)
    ]
    held = [np.abs(end).max(axis=0) < 0.2 for end in ends]
    assert float((held[0] != held[1]).mean()) < 0.02
    assert 0.5 < float(held[0].mean()) < 0.8


def test_error_bars_are_never_zero_and_shrink_with_the_runs() -> None:
    assert toy.Stuck(rho=0.0, count=0, runs=100).error > 0
    half = [toy.Stuck(rho=0.1, count=n // 2, runs=n).error for n in (100, 400)]
    assert half[0] == pytest.approx(0.05, rel=0.02)
    assert half[1] == pytest.approx(half[0] / 2, rel=0.02)


def test_a_share_that_is_off_does_not_agree() -> None:
    assert toy._share_row(toy.Stuck(rho=0.1, count=647, runs=1000)).agrees
    assert not toy._share_row(toy.Stuck(rho=0.1, count=550, runs=1000)).agrees


def test_the_line_of_saddles_of_the_square() -> None:
    assert toy.hessian_norm_at_origin() == 0.0
    assert toy.line_threshold(num_steps=100) == pytest.approx(1 / abs(toy.line_curvature()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_everything_agrees(tmp_path: Path, seed: int) -> None:
    outcome = toy.perform(tmp_path, seed, lambda _line: None)
    assert [row for row in outcome.rows if not row.agrees] == []
    assert min(size_of(outcome.pictures[0])) > 600
    assert all(path.is_file() for path in outcome.checkpoints)
