"""The level at which constant-rho SAM stops, against the runs that do stop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.theory.floor import convergence_floor

from .simulate import sam, trajectory


def test_stalled_runs_lie_below_the_floor() -> None:
    """On convex quadratics with eta ≤ 1/beta a settled run's gradient is below beta·rho, and proportional to rho."""
    rng = np.random.default_rng(0)
    for _ in range(15):
        lam = np.sort(rng.uniform(0.2, 6, 3))
        beta = float(lam[-1])
        lr = float(rng.uniform(0.1, 1.0)) / beta
        settled = []
        for rho in (0.1, 0.05):
            path = trajectory(sam(lam, rho), np.array([[1.0, -0.7, 0.4]]) * rho, lr=lr, steps=3000)[-100:, 0]
            settled.append(float(np.linalg.norm(lam * path, axis=1).max()))
            assert 0 < settled[-1] <= convergence_floor(rho, beta)
        assert settled[0] == pytest.approx(2 * settled[1], rel=0.02)


def test_the_known_sine_stops_at_a_fixed_share_of_the_floor() -> None:
    """|g| = 3 beta rho/(5 pi) · sin(pi/3) = 0.1654 beta rho at the point where x+ is the minimum."""
    rho, beta = 0.6, 2.0
    share = 3 / (5 * math.pi) * math.sqrt(3) / 2
    assert share == pytest.approx(0.1654, abs=1e-4)
    assert share * beta * rho < convergence_floor(rho, beta)


def test_no_floor_without_positive_curvature() -> None:
    assert convergence_floor(0.5, -1.0) == 0.0
    assert convergence_floor(0.5, 4.0) == 2.0
