"""Noise along one direction: exact variances, profiles and escape times against Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.theory.diffusion import escape_profile, escape_steps, noise_scale, roots, step_noise, variance
from samdiag.theory.saddle import shifted_eigenvalue

from .simulate import heavy_ball


def spread_after(
    steps: int, mu: float, lr: float, momentum: float, noise: float, rng: np.random.Generator, runs: int = 20000
) -> float:
    end = heavy_ball(
        lambda x: mu * x + math.sqrt(noise) * rng.standard_normal(x.shape),
        np.zeros(runs),
        lr=lr,
        momentum=momentum,
        steps=steps,
    )
    return float(np.mean(end**2))


@pytest.mark.parametrize(("same_batch", "known"), [(False, 0.02938396249529597), (True, 0.014398141622695024)])
def test_variance_of_usam_at_the_two_known_cases(same_batch: bool, known: float) -> None:
    """lam −1, rho 0.3, eta 0.01, B 64, 400 steps; the per-step noise simulated as the practice has it."""
    lam, rho, lr, batch, steps = -1.0, 0.3, 0.01, 64, 400
    mu = shifted_eigenvalue(lam, rho)
    c = step_noise(1.0, batch, rho, lam, same_batch=same_batch)
    assert variance(steps, mu, lr, 0.0, c) == pytest.approx(known, rel=1e-9)
    rng = np.random.default_rng(0)
    sigma = 1 / math.sqrt(batch)

    def update(x: np.ndarray) -> np.ndarray:
        n = sigma * rng.standard_normal(x.shape)
        ascent = lam * x + (n if same_batch else 0.0)
        return np.asarray(lam * (x + rho * ascent) + n)

    end = heavy_ball(update, np.zeros(20000), lr=lr, steps=steps)
    assert float(np.mean(end**2)) == pytest.approx(known, rel=0.05)


@pytest.mark.parametrize(("mu", "lr", "momentum"), [
    (-0.7, 0.05, 0.0), (-0.7, 0.05, 0.9), (-0.2, 0.3, 0.5), (1.3, 0.1, 0.9), (4.0, 0.3, 0.5), (0.0, 0.1, 0.9),
])  # fmt: skip
def test_variance_with_momentum_by_monte_carlo(mu: float, lr: float, momentum: float) -> None:
    rng = np.random.default_rng(1)
    for steps in (1, 7, 60):
        expected = variance(steps, mu, lr, momentum, 0.4)
        assert spread_after(steps, mu, lr, momentum, 0.4, rng) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
def test_stationary_variance_for_positive_mu(momentum: float) -> None:
    mu, lr, noise = 1.5, 0.2, 0.3
    eta_mu = lr * mu
    closed = lr**2 * noise * (1 + momentum) / ((1 - momentum) * eta_mu * (2 * (1 + momentum) - eta_mu))
    assert variance(4000, mu, lr, momentum, noise) == pytest.approx(closed, rel=1e-9)


def test_variance_is_the_sum_over_roots() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        mu, lr, momentum = float(rng.uniform(-2, 3)), float(rng.uniform(0.01, 0.3)), float(rng.uniform(0, 0.99))
        big, small = roots(mu, lr, momentum)
        assert big + small == pytest.approx(1 + momentum - lr * mu)
        assert big * small == pytest.approx(momentum)
        assert abs(big) >= abs(small) * (1 - 1e-12)
        if abs(big - small) < 1e-3:
            continue
        h = [((big ** (k + 1) - small ** (k + 1)) / (big - small)).real for k in range(30)]
        assert variance(30, mu, lr, momentum, 0.7) == pytest.approx(lr**2 * 0.7 * sum(v * v for v in h), rel=1e-6)


def test_variance_has_no_trouble_at_a_double_root() -> None:
    momentum, lr = 0.49, 0.1
    mu = (1 + momentum - 2 * math.sqrt(momentum)) / lr
    near = variance(50, mu * (1 + 1e-7), lr, momentum, 1.0)
    assert variance(50, mu, lr, momentum, 1.0) == pytest.approx(near, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("mu", [-0.8, 0.6])
def test_escape_profile_is_the_deterministic_mode(mu: float, momentum: float) -> None:
    for steps in (0, 1, 2, 33):
        end = heavy_ball(lambda x: mu * x, np.array([0.3]), lr=0.1, momentum=momentum, steps=steps)
        amplitude, total = escape_profile(steps, mu, 0.1, momentum)
        assert amplitude * 0.3 == pytest.approx(end[0], rel=1e-12)
        assert total * 0.1**2 * 2.0 == pytest.approx(variance(steps, mu, 0.1, momentum, 2.0), rel=1e-12)


def test_variance_grows_and_falls_as_stated() -> None:
    """For mu < 0: up with momentum and |mu|, down with rho_eff below 1/|lam|, ∝ 1/B."""
    by_momentum = [variance(80, -0.5, 0.05, g, 1.0) for g in (0.0, 0.3, 0.6, 0.9)]
    assert by_momentum == sorted(by_momentum)
    by_rho = [
        variance(80, shifted_eigenvalue(-1.0, r), 0.05, 0.5, step_noise(1.0, 32, r, -1.0)) for r in (0.0, 0.3, 0.6, 0.9)
    ]
    assert by_rho == sorted(by_rho, reverse=True)
    assert step_noise(1.0, 32, 0.3, -1.0) * 32 == pytest.approx(step_noise(1.0, 1, 0.3, -1.0))
    assert step_noise(1.0, 32, math.inf, -1.0) == math.inf


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("offset", "noise"), [(1e-3, 0.0), (0.0, 0.02), (0.01, 0.02), (0.0, 1e-4)])
def test_escape_steps_against_the_median_exit_of_simulated_runs(momentum: float, offset: float, noise: float) -> None:
    rng = np.random.default_rng(3)
    lr, mu, distance = 0.05, -0.6, 0.5
    predicted = escape_steps(
        offset=offset, noise=noise, exit_distance=distance, mu=mu, lr=lr, momentum=momentum, max_steps=5000
    )
    assert predicted is not None
    runs = 600 if noise else 1
    x, v = np.full(runs, offset), np.zeros(runs)
    exits = np.full(runs, 10**9)
    for step in range(4 * predicted + 10):
        exits = np.where((exits == 10**9) & (np.abs(x) >= distance), step, exits)
        v = momentum * v + mu * x + math.sqrt(noise) * rng.standard_normal(runs)
        x = x - lr * v
    median = float(np.median(exits))
    if noise == 0:
        assert median == predicted
    else:
        assert predicted / 1.6 < median < predicted * 1.6


def test_no_escape_time_where_there_is_no_escape() -> None:
    known = {"exit_distance": 1.0, "lr": 0.1, "momentum": 0.9}
    assert escape_steps(offset=0.1, noise=0.1, mu=0.0, **known) is None
    assert escape_steps(offset=0.1, noise=0.1, mu=2.0, **known) is None
    assert escape_steps(offset=0.1, noise=0.1, mu=math.inf, **known) is None
    assert escape_steps(offset=0.1, noise=0.1, mu=-math.inf, **known) is None
    assert escape_steps(offset=0.0, noise=0.0, mu=-1.0, **known) is None
    assert escape_steps(offset=1e-9, noise=0.0, mu=-1e-6, max_steps=1000, **known) is None
    assert escape_steps(offset=2.0, noise=0.0, mu=-1.0, **known) == 0


def test_noise_scale_is_where_noise_equals_signal() -> None:
    rng = np.random.default_rng(4)
    g = rng.normal(size=20)
    per_sample = rng.uniform(0.5, 2, 20)
    size = noise_scale(float(per_sample.sum()), float(g @ g))
    errors = np.sqrt(per_sample / size) * rng.standard_normal((20000, 20))
    assert float((errors**2).sum(axis=1).mean()) == pytest.approx(float(g @ g), rel=0.02)
    assert noise_scale(1.0, 0.0) == math.inf
