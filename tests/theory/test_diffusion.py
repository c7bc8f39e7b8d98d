"""Noise along one direction: exact variances, profiles and escape times against Monte Carlo."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samdiag.theory.diffusion import (
    Ascent,
    early_variance,
    escape_exponent,
    escape_profile,
    escape_steps,
    late_variance,
    noise_scale,
    noise_variance,
    roots,
    stationary_variance,
    step_noise,
    variance,
)
from samdiag.theory.edge import stability_edge
from samdiag.theory.saddle import shifted_eigenvalue

from .simulate import heavy_ball

CASES = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text(encoding="utf-8"))["stochastic"]


def spread_after(
    steps: int,
    mu: float,
    lr: float,
    momentum: float,
    noise: float,
    rng: np.random.Generator,
    runs: int = 20000,
    nesterov: bool = False,
) -> float:
    end = heavy_ball(
        lambda x: mu * x + math.sqrt(noise) * rng.standard_normal(x.shape),
        np.zeros(runs),
        lr=lr,
        momentum=momentum,
        steps=steps,
        nesterov=nesterov,
    )
    return float(np.mean(end**2))


def usam_with_noise(
    lam: float, rho: float, batch: int, ascent: Ascent, rng: np.random.Generator, ascent_batch: int | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """USAM's update on ½ lam x² with unit per-sample noise, the ascent gradient's samples drawn as said."""

    def update(x: np.ndarray) -> np.ndarray:
        n = rng.standard_normal(x.shape) / math.sqrt(batch)
        first = {"full": 0.0, "same": n}.get(ascent)
        if first is None:
            first = rng.standard_normal(x.shape) / math.sqrt(ascent_batch or batch)
        return np.asarray(lam * (x + rho * (lam * x + first)) + n)

    return update


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_stochastic_case_with_a_known_answer(case: dict[str, Any]) -> None:
    """Its exact V through the theory functions (qᵀCq = |lam|, as the case says), and the same by Monte Carlo."""
    ascent: Ascent = "full" if "full gradient" in case["noise"] else "same"
    mu = shifted_eigenvalue(case["lam"], case["rho"])
    c = noise_variance(abs(case["lam"]), case["B"], case["rho"], case["lam"], ascent=ascent)
    known = {"steps": case["N"], "mu": mu, "lr": case["eta"], "momentum": case["gamma"], "noise": c}
    assert variance(**known) == pytest.approx(case["V"], rel=1e-12)
    assert late_variance(**known) == pytest.approx(case["V"], rel=1e-12)  # exact without momentum
    rng = np.random.default_rng(0)
    update = usam_with_noise(case["lam"], case["rho"], case["B"], ascent, rng)
    end = heavy_ball(update, np.zeros(20000), lr=case["eta"], momentum=case["gamma"], steps=case["N"])
    assert float(np.mean(end**2)) == pytest.approx(case["V"], rel=0.03)  # 2 standard errors of 20000 runs: 2 %


@pytest.mark.parametrize(("ascent", "ascent_batch"), [
    ("full", None), ("same", None), ("independent", None), ("independent", 8),
])  # fmt: skip
@pytest.mark.parametrize("lam", [-1.5, 2.0])
def test_noise_of_one_step_in_the_three_ways_to_run_sam(lam: float, ascent: Ascent, ascent_batch: int | None) -> None:
    rng = np.random.default_rng(5)
    update = usam_with_noise(lam, 0.4, 32, ascent, rng, ascent_batch)
    expected = noise_variance(1.0, 32, 0.4, lam, ascent=ascent, ascent_batch=ascent_batch)
    assert float(np.var(update(np.full(40000, 0.3)))) == pytest.approx(expected, rel=0.03)


def test_noise_at_the_critical_point_itself() -> None:
    assert noise_variance(2.0, 4, math.inf, -1.0, ascent="full") == 0.5
    assert noise_variance(2.0, 4, math.inf, -1.0, ascent="same") == math.inf
    assert step_noise(2.0, 4, 0.5, -1.0) == noise_variance(2.0, 4, 0.5, -1.0, ascent="same")
    assert step_noise(2.0, 4, 0.5, -1.0, same_batch=False) == noise_variance(2.0, 4, 0.5, -1.0, ascent="full")


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("mu", "lr", "momentum"), [
    (-0.7, 0.05, 0.0), (-0.7, 0.05, 0.9), (-0.2, 0.3, 0.5), (1.3, 0.1, 0.9), (4.0, 0.3, 0.5), (0.0, 0.1, 0.9),
])  # fmt: skip
def test_variance_with_momentum_by_monte_carlo(mu: float, lr: float, momentum: float, nesterov: bool) -> None:
    rng = np.random.default_rng(1)
    for steps in (1, 7, 60):
        expected = variance(steps, mu, lr, momentum, 0.4, nesterov=nesterov)
        spread = spread_after(steps, mu, lr, momentum, 0.4, rng, nesterov=nesterov)
        assert spread == pytest.approx(expected, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 6), st.floats(0.01, 0.4), st.floats(0, 0.98), st.booleans(), st.integers(1, 40))
def test_variance_is_the_squared_impulse_response(
    mu: float, lr: float, momentum: float, nesterov: bool, steps: int
) -> None:
    """Every unit of noise, followed through the real optimiser: V_N is the sum of squares of what becomes of it."""
    kick = np.eye(steps)

    class Update:
        def __init__(self) -> None:
            self.step = 0

        def __call__(self, x: np.ndarray) -> np.ndarray:
            self.step += 1
            return np.asarray(mu * x + kick[self.step - 1])

    end = heavy_ball(Update(), np.zeros(steps), lr=lr, momentum=momentum, steps=steps, nesterov=nesterov)
    assert variance(steps, mu, lr, momentum, 0.3, nesterov=nesterov) == pytest.approx(0.3 * float(end @ end), rel=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_stationary_variance_is_where_the_variance_settles(momentum: float, nesterov: bool, share: float) -> None:
    lr, noise = 0.2, 0.3
    mu = share * stability_edge(momentum, nesterov=nesterov) / lr
    closed = stationary_variance(mu, lr, momentum, noise, nesterov=nesterov)
    assert variance(6000, mu, lr, momentum, noise, nesterov=nesterov) == pytest.approx(closed, rel=1e-9)
    spread = spread_after(400, mu, lr, momentum, noise, np.random.default_rng(6), 5000, nesterov)
    assert spread == pytest.approx(variance(400, mu, lr, momentum, noise, nesterov=nesterov), rel=0.1)


def test_no_stationary_variance_outside_the_stable_range() -> None:
    for nesterov in (False, True):
        assert stationary_variance(-0.1, 0.1, 0.9, 1.0, nesterov=nesterov) == math.inf
        assert stationary_variance(0.0, 0.1, 0.9, 1.0, nesterov=nesterov) == math.inf
        edge = stability_edge(0.9, nesterov=nesterov) / 0.1
        assert stationary_variance(1.01 * edge, 0.1, 0.9, 1.0, nesterov=nesterov) == math.inf
        assert variance(20000, 1.01 * edge, 0.1, 0.9, 1.0, nesterov=nesterov) == math.inf


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.7, 0.95])
def test_early_variance_is_free_diffusion(momentum: float, nesterov: bool) -> None:
    for steps in (1, 3, 30, 300):
        exact = variance(steps, 0.0, 0.1, momentum, 2.0, nesterov=nesterov)
        assert early_variance(steps, 0.1, momentum, 2.0, nesterov=nesterov) == pytest.approx(exact, rel=1e-9)
    assert early_variance(10**6, 1.0, momentum, 1.0) == pytest.approx(10**6 / (1 - momentum) ** 2, rel=1e-3)


def test_early_variance_has_three_regimes_and_no_third_power() -> None:
    """gamma 0.99: N³/3 at N = 10, the interpolation at N = 100, N/(1−gamma)² at N = 10⁴."""
    assert early_variance(10, 1.0, 0.999, 1.0) == pytest.approx(10 * 11 * 21 / 6, rel=0.02)
    tau, e = 1.0, math.exp(-1.0)
    assert early_variance(1000, 1.0, 0.999, 1.0) == pytest.approx(1e9 * (tau - (1 - e) - (1 - e) ** 2 / 2), rel=0.01)
    assert early_variance(10**4, 1.0, 0.99, 1.0) == pytest.approx(1e8, rel=0.02)


@settings(max_examples=100, deadline=None)
@given(st.floats(-3, 0, exclude_max=True), st.floats(1e-4, 0.5), st.floats(0, 0.99), st.booleans())
def test_late_variance_takes_over_from_the_growing_root(mu: float, lr: float, momentum: float, nesterov: bool) -> None:
    exponent = escape_exponent(mu, lr, momentum, nesterov=nesterov)
    assert 0 <= exponent <= math.sqrt(lr * -mu) * (1 + 1e-9) + (math.log1p(lr * -mu) if nesterov else 0.0)
    if exponent < 1e-3:
        return
    steps = math.ceil(8 / exponent)
    exact = variance(steps, mu, lr, momentum, 0.5, nesterov=nesterov)
    assert late_variance(steps, mu, lr, momentum, 0.5, nesterov=nesterov) == pytest.approx(exact, rel=0.02)
    ahead = variance(steps + 50, mu, lr, momentum, 0.5, nesterov=nesterov)
    assert math.log(ahead / exact) / 100 == pytest.approx(exponent, rel=1e-2)


def test_late_variance_is_the_usable_law_of_momentum() -> None:
    """exp(2|mu|t/(1−gamma)) while eta|mu| ≪ (1−gamma)², the cap √(eta|mu|) where momentum is too close to 1."""
    lr, gamma = 1e-4, 0.9
    assert escape_exponent(-1.0, lr, gamma) == pytest.approx(lr / (1 - gamma), rel=0.01)
    growth = late_variance(8000, -1.0, lr, gamma, 1.0) / late_variance(7000, -1.0, lr, gamma, 1.0)
    assert growth == pytest.approx(math.exp(2 * lr * 1000 / (1 - gamma)), rel=0.03)
    assert escape_exponent(-1.0, 0.01, 0.9999) == pytest.approx(math.sqrt(0.01), rel=0.01)
    assert escape_exponent(0.5, 0.01, 0.9) == 0.0
    assert late_variance(10**6, -1.0, 0.1, 0.9, 1.0) == math.inf
    with pytest.raises(ValueError, match="not negative"):
        late_variance(10, 0.0, 0.1, 0.9, 1.0)


@pytest.mark.parametrize("nesterov", [False, True])
def test_variance_is_the_sum_over_roots(nesterov: bool) -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        mu, lr, momentum = float(rng.uniform(-2, 3)), float(rng.uniform(0.01, 0.3)), float(rng.uniform(0, 0.99))
        big, small = roots(mu, lr, momentum, nesterov=nesterov)
        pull = 1 - lr * mu if nesterov else 1.0
        assert big + small == pytest.approx((1 + momentum) * pull - (0.0 if nesterov else lr * mu))
        assert big * small == pytest.approx(momentum * pull)
        assert abs(big) >= abs(small) * (1 - 1e-12)
        if abs(big - small) < 1e-3:
            continue
        p = [((big ** (k + 1) - small ** (k + 1)) / (big - small)).real for k in range(-1, 30)]
        h = [(1 + momentum) * p[k + 1] - momentum * p[k] if nesterov else p[k + 1] for k in range(30)]
        exact = variance(30, mu, lr, momentum, 0.7, nesterov=nesterov)
        assert exact == pytest.approx(lr**2 * 0.7 * sum(v * v for v in h), rel=1e-6)


def test_variance_has_no_trouble_at_a_double_root() -> None:
    momentum, lr = 0.49, 0.1
    mu = (1 + momentum - 2 * math.sqrt(momentum)) / lr
    near = variance(50, mu * (1 + 1e-7), lr, momentum, 1.0)
    assert variance(50, mu, lr, momentum, 1.0) == pytest.approx(near, rel=1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("mu", [-0.8, 0.6])
def test_escape_profile_is_the_deterministic_mode(mu: float, momentum: float, nesterov: bool) -> None:
    for steps in (0, 1, 2, 33):
        run = {"lr": 0.1, "momentum": momentum, "steps": steps, "nesterov": nesterov}
        end = heavy_ball(lambda x: mu * x, np.array([0.3]), **run)
        amplitude, total = escape_profile(steps, mu, 0.1, momentum, nesterov=nesterov)
        assert amplitude * 0.3 == pytest.approx(end[0], rel=1e-11)
        exact = variance(steps, mu, 0.1, momentum, 2.0, nesterov=nesterov)
        assert total * 0.1**2 * 2.0 == pytest.approx(exact, rel=1e-12)


def test_what_overflows_is_infinite_and_not_an_error() -> None:
    for nesterov in (False, True):
        assert escape_profile(10**5, -5.0, 0.5, 0.9, nesterov=nesterov) == (math.inf, math.inf)
        assert variance(10**5, -5.0, 0.5, 0.9, 0.0, nesterov=nesterov) == 0.0
        assert variance(10**5, -5.0, 0.5, 0.9, 1.0, nesterov=nesterov) == math.inf
        left = escape_steps(
            offset=0.0, noise=1e-300, exit_distance=1e3, mu=-5.0, lr=0.5, momentum=0.9, nesterov=nesterov
        )
        assert left is not None
        assert left < 1000


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


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("offset", "noise"), [(1e-3, 0.0), (0.0, 0.02), (0.01, 0.02), (0.0, 1e-4)])
def test_escape_steps_against_the_median_exit_of_simulated_runs(
    momentum: float, offset: float, noise: float, nesterov: bool
) -> None:
    rng = np.random.default_rng(3)
    lr, mu, distance = 0.05, -0.6, 0.5
    predicted = escape_steps(
        offset=offset,
        noise=noise,
        exit_distance=distance,
        mu=mu,
        lr=lr,
        momentum=momentum,
        max_steps=5000,
        nesterov=nesterov,
    )
    assert predicted is not None
    runs = 600 if noise else 1
    x, v = np.full(runs, offset), np.zeros(runs)
    exits = np.full(runs, 10**9)
    for step in range(4 * predicted + 10):
        exits = np.where((exits == 10**9) & (np.abs(x) >= distance), step, exits)
        g = mu * x + math.sqrt(noise) * rng.standard_normal(runs)
        v = momentum * v + g
        x = x - lr * (g + momentum * v if nesterov else v)
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
