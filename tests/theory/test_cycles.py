"""Longer bounces: every cycle listed is one that the simulated optimiser keeps and returns to."""

from __future__ import annotations

import numpy as np
import pytest

from samdiag.theory.cycles import bounce_cycles
from samdiag.theory.edge import bounce_amplitude, stability_edge

from .simulate import sam, trajectory


def settled(lam: float, rho: float, lr: float, momentum: float, nesterov: bool, runs: int = 60) -> np.ndarray:
    """[200, runs] the last points of runs from starts over seven orders of magnitude, velocities included."""
    rng = np.random.default_rng(0)
    starts = lr * lam * rho * np.exp(rng.uniform(-4, 7, (runs, 1)))
    velocity = rng.normal(size=(runs, 1)) * starts * lam
    path = trajectory(
        sam(np.array([lam]), rho),
        starts,
        lr=lr,
        momentum=momentum,
        steps=3000,
        nesterov=nesterov,
        velocity=velocity,
    )
    return path[-200:, :, 0]


def half_period(points: np.ndarray) -> int | None:
    """n with x_{k+n} = −x_k, None without one up to 40."""
    size = np.abs(points).max()
    return next((n for n in range(1, 40) if np.abs(points[n:] + points[:-n]).max() < 1e-7 * size), None)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("eta_lam", [0.02, 0.3, 0.9])
def test_simulated_cycles_are_those_listed(eta_lam: float, momentum: float, nesterov: bool) -> None:
    lam, rho = 4.0, 0.3
    lr = eta_lam / lam
    listed = {c.half_period: c for c in bounce_cycles(lam, rho, lr, momentum, nesterov=nesterov)}
    assert listed[1].amplitude == pytest.approx(bounce_amplitude(lam, rho, lr, momentum, nesterov=nesterov))
    seen = 0
    for points in settled(lam, rho, lr, momentum, nesterov).T:
        n = half_period(points)
        if n in listed and np.abs(points).max() == pytest.approx(listed[n].amplitude, rel=1e-6):
            assert np.abs(points).min() == pytest.approx(listed[n].smallest_distance, rel=1e-6)
            seen += 1
    assert seen == 60 if momentum <= 0.5 else seen > 20


@pytest.mark.parametrize("nesterov", [False, True])
def test_every_listed_cycle_attracts_from_beside_it(nesterov: bool) -> None:
    """Started on the cycle's own points, found by running it, then disturbed by less than its smallest distance."""
    lam, rho, lr, momentum = 1.0, 1.0, 0.1, 0.9
    update = sam(np.array([lam]), rho)
    kept = {}
    for points in settled(lam, rho, lr, momentum, nesterov, runs=400).T:
        n = half_period(points)
        if n is not None:
            kept[n] = points
    for cycle in bounce_cycles(lam, rho, lr, momentum, nesterov=nesterov):
        if cycle.half_period not in kept:
            continue
        points = kept[cycle.half_period]
        x = points[1:2]
        # the velocity that led from points[0] to points[1]; Nesterov's step is g + gamma v
        step = (points[0:1] - points[1:2]) / lr
        v = (step - update(points[0:1])) / momentum if nesterov else step
        nudge = 0.2 * cycle.smallest_distance
        again = trajectory(update, x + nudge, lr=lr, momentum=momentum, steps=2000, nesterov=nesterov, velocity=v)[
            -100:, 0
        ]
        assert np.abs(again).max() == pytest.approx(cycle.amplitude, rel=1e-6)
    assert len(kept) >= 2


def test_the_largest_cycle_with_heavy_momentum_is_27_times_the_bounce() -> None:
    cycles = bounce_cycles(1.0, 1.0, 0.02, 0.9)
    assert [c.half_period for c in cycles] == [1, 2, 3, 4, 5, 6, 7]
    assert cycles[-1].amplitude / cycles[0].amplitude == pytest.approx(26.98, abs=0.01)
    nesterov = bounce_cycles(1.0, 1.0, 0.02, 0.9, nesterov=True)
    assert nesterov[-1].amplitude / nesterov[0].amplitude < 3.2


def test_amplitudes_scale_with_rho_and_grow_with_the_period() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        lam, rho, momentum = float(rng.uniform(0.5, 9)), float(rng.uniform(0.01, 2)), float(rng.uniform(0, 0.95))
        nesterov = bool(rng.integers(2))
        lr = float(rng.uniform(0.02, 0.95)) * stability_edge(momentum, nesterov=nesterov) / lam
        cycles = bounce_cycles(lam, rho, lr, momentum, nesterov=nesterov)
        amplitudes = [c.amplitude for c in cycles]
        assert cycles[0].half_period == 1
        assert amplitudes == sorted(amplitudes)
        double = bounce_cycles(lam, 2 * rho, lr, momentum, nesterov=nesterov)
        assert [c.amplitude for c in double] == pytest.approx([2 * a for a in amplitudes])


def test_no_cycle_without_a_valley_or_beyond_the_edge() -> None:
    assert bounce_cycles(-1.0, 0.1, 0.1, 0.9) == ()
    assert bounce_cycles(10.0, 0.1, 0.2, 0.0) == ()
    assert len(bounce_cycles(10.0, 0.1, 0.2, 0.0 + 0.5)) >= 1
