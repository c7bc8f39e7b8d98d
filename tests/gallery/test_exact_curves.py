"""The separatrix and the cycles against simulation: both are exact computations that rows are held to."""

from __future__ import annotations

import numpy as np
import pytest

from samdiag.gallery.cycles import observed_period, symmetric_cycles
from samdiag.gallery.dynamics import quadratic, run
from samdiag.gallery.separatrix import capture_radius, captured_share, separatrix
from samdiag.theory.edge import bounce_amplitude


def test_the_separatrix_satisfies_its_equation_and_begins_at_the_repeller() -> None:
    p, q = separatrix()
    assert q[0] == pytest.approx(1.0, abs=1e-6)
    assert (np.diff(q) < 0).all()
    slope = np.gradient(q, np.log(p))[1:-1]
    r = np.hypot(p, q)[1:-1]
    assert np.allclose(slope, -q[1:-1] * (r - 1) / (r + 1), atol=1e-6)


@pytest.mark.parametrize("curvature", [0.5, 3.0])
@pytest.mark.parametrize(("p", "q"), [(3.0, 0.01), (0.2, 0.1), (0.05, 0.4)])
def test_starts_on_either_side_of_it_part(curvature: float, p: float, q: float) -> None:
    """Small steps of normalised SAM 2 % below and above the radius; the curvature makes no difference."""
    rhos = capture_radius(p, q) * np.array([0.98, 1.02])
    lr = 2e-3 / curvature
    starts = np.array([[p, p], [q, q]])
    end = run(quadratic([curvature, -curvature]), starts, rho=rhos, lr=lr, num_steps=8000)
    assert abs(end[1, 0]) > 10 * q
    assert abs(end[1, 1]) < 0.1 * q


def test_the_captured_share_is_a_probability_of_gaussian_starts() -> None:
    p, q = np.abs(np.random.default_rng(0).standard_normal((2, 200_000))) * 0.1
    grid, curve = separatrix()
    for rho in (0.02, 0.05, 0.2):
        counted = float((q / rho < np.interp(p / rho, grid, curve)).mean())
        assert captured_share(rho, 0.1) == pytest.approx(counted, abs=0.004)  # four standard errors
    assert captured_share(0.0, 0.1) == 0.0
    assert captured_share(5.0, 0.1) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("a", "momentum"), [(0.5, 0.0), (0.5, 0.5), (0.1, 0.9)])
def test_the_shortest_cycle_is_the_bounce(a: float, momentum: float) -> None:
    assert symmetric_cycles(a, momentum)[2] == pytest.approx(bounce_amplitude(1.0, 1.0, a, momentum), rel=1e-12)


def test_without_momentum_there_is_only_the_bounce_and_with_it_there_are_more() -> None:
    assert list(symmetric_cycles(0.5, 0.0)) == [2]
    assert list(symmetric_cycles(0.07, 0.9)) == [2, 4, 6, 8, 10, 12]


def test_the_period_of_a_tail() -> None:
    assert observed_period(np.tile([1.0, 2.0, -3.0], 20)) == 3
    assert observed_period(np.cumsum(np.ones(60))) is None
