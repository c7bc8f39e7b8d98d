"""Estimators from batches, against what they estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.theory.estimators import (
    ascent_samples,
    debiased_grad_norm_squared,
    measured_effective_radius,
    noise_trace,
)
from samdiag.theory.saddle import critical_batch_size, effective_radius, shifted_eigenvalue


def batches(rng: np.random.Generator, g: np.ndarray, std: np.ndarray, size: int, count: int, trials: int) -> np.ndarray:
    """[trials, count, d] gradients of batches of `size` samples with per-sample deviation `std`."""
    return g + std / math.sqrt(size) * rng.standard_normal((trials, count, g.size))


def test_noise_trace_and_norm_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    g, std = rng.normal(size=12), rng.uniform(0.5, 3, 12)
    truth = float((std**2).sum())
    for count in (2, 5):
        drawn = batches(rng, g, std, 8, count, 20000)
        mean = drawn.mean(axis=1)
        deviation = ((drawn - mean[:, None]) ** 2).sum(axis=2).mean(axis=1)
        traces = np.array([noise_trace(float(d), 8, count) for d in deviation])
        assert traces.mean() == pytest.approx(truth, rel=0.02)
        squares = (mean**2).sum(axis=1)
        debiased = np.mean(squares - traces / (8 * count))
        assert debiased == pytest.approx(float(g @ g), rel=0.02)
        assert squares.mean() > 1.1 * float(g @ g)  # what the bias would do
        assert debiased_grad_norm_squared(float(squares[0]), float(traces[0]), 8, count) == pytest.approx(
            max(squares[0] - traces[0] / (8 * count), 0.0)
        )


def test_estimators_at_their_limits() -> None:
    assert math.isnan(noise_trace(1.0, 8, 1))
    assert debiased_grad_norm_squared(0.1, 100.0, 8, 4) == 0.0
    with pytest.raises(ValueError, match="2 norms and 1 overlaps"):
        measured_effective_radius(0.1, [1.0, 2.0], [0.0])
    value, error = measured_effective_radius(0.1, [0.5], [0.0])
    assert value == pytest.approx(0.2)
    assert math.isnan(error)
    assert measured_effective_radius(0.1, [0.5, 0.0], [0.0, 0.0])[0] == math.inf


@pytest.mark.parametrize("dim", [3, 64])
def test_measured_radius_is_the_response_of_the_simulated_update(dim: int) -> None:
    """The drift that a small displacement along q adds to E[∇f_b(x + rho·u_b)]: lam(1 + rho_eff·lam), common noise."""
    rng = np.random.default_rng(1)
    lam, rho, size, count = -2.0, 0.3, 16, 40000
    curvature = np.ones(dim)
    curvature[0] = lam
    pull = np.zeros(dim)
    pull[-1] = 0.1
    noise = np.sqrt(1.0 / size) * rng.standard_normal((count, dim))

    def update(displacement: float) -> float:
        x = np.zeros(dim)
        x[0] = displacement
        g = curvature * x + pull + noise
        ahead = curvature * (x + rho * g / np.linalg.norm(g, axis=1, keepdims=True)) + pull + noise
        return float(ahead[:, 0].mean())

    here = pull + noise
    norms = np.linalg.norm(here, axis=1)
    value, error = measured_effective_radius(rho, list(norms), list((here[:, 0] / norms) ** 2))
    response = (update(1e-4) - update(-1e-4)) / 2e-4
    assert response == pytest.approx(shifted_eigenvalue(lam, value), abs=1e-3 + 4 * error * lam**2)
    closed = effective_radius(rho, 0.1, float(dim), size)
    # in 3 isotropic dimensions the closed form is some 8 % too large; in 64 it is good to 2 %
    assert 0.04 < closed / value - 1 < 0.13 if dim == 3 else abs(closed / value - 1) < 0.02


def test_standard_error_of_the_measured_radius() -> None:
    rng = np.random.default_rng(2)
    means, errors = [], []
    for _ in range(800):
        norms = np.abs(rng.normal(2.0, 0.4, 20)) + 0.2
        overlaps = rng.uniform(0, 0.3, 20)
        mean, error = measured_effective_radius(0.1, list(norms), list(overlaps))
        means.append(mean)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(float(np.std(means)), rel=0.1)


@pytest.mark.parametrize("batch", [64, 1024])
def test_capture_depends_on_the_micro_batch_and_not_on_the_batch(batch: int) -> None:
    """m-SAM: B/m micro-batches, each with its own ascent; the mean mode grows or shrinks as m, not B, says."""
    rng = np.random.default_rng(3)
    dim, lam, rho, lr, steps = 48, -1.0, 0.5, 0.05, 60
    limit = critical_batch_size(float(dim), rho, lam, 0.0)
    assert limit == pytest.approx(192)
    curvature = np.zeros(dim)
    curvature[0] = lam
    for micro, grows in ((64, True), (512, False)):
        m = ascent_samples(batch, micro)
        assert m == min(batch, micro)
        if m != micro:
            continue
        pieces = batch // micro
        x = np.zeros((400, 1, dim))
        x[:, :, 0] = 0.1
        for _ in range(steps):
            n = math.sqrt(1 / micro) * rng.standard_normal((400, pieces, dim))
            g = curvature * x + n
            ahead = curvature * (x + rho * g / np.linalg.norm(g, axis=2, keepdims=True)) + n
            x = x - lr * ahead.mean(axis=1, keepdims=True)
        growth = float(x[:, 0, 0].mean()) / 0.1
        expected = (1 - lr * shifted_eigenvalue(lam, effective_radius(rho, 0.0, dim, m))) ** steps
        assert growth == pytest.approx(expected, rel=0.2)
        assert (growth > 1) is grows


def test_ascent_samples() -> None:
    assert ascent_samples(None) == math.inf
    assert ascent_samples(128) == 128
    assert ascent_samples(128, 32) == 32
    assert ascent_samples(None, 32) == 32
