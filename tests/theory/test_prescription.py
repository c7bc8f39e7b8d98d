"""Each bound: just inside it the stated property holds in simulation, just outside it does not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from samdiag.theory.edge import stability_edge
from samdiag.theory.prescription import (
    MAX_MOMENTUM,
    decay_steps,
    edge_lr,
    edge_rho,
    freeing_batch_size,
    matching_momentum,
    noise_momentum_cap,
    releasing_lr,
    saddle_rho,
)
from samdiag.theory.saddle import captured_while_bouncing, shifted_eigenvalue

from .simulate import heavy_ball, usam


def growth(lam: float, rho: float, lr: float, momentum: float, weight_decay: float = 0.0) -> float:
    """log of the factor per step of simulated USAM (rho = 0: SGD), late in the run."""
    update = usam(np.array([lam]), rho, weight_decay)
    early, late = (heavy_ball(update, np.array([1.0]), lr=lr, momentum=momentum, steps=n)[0] for n in (400, 500))
    return math.log(late / early) / 100


@pytest.mark.parametrize("weight_decay", [0.0, 0.4])
@pytest.mark.parametrize("kept", [0.25, 0.5, 0.9])
def test_saddle_rho_keeps_the_stated_share_of_the_escape_rate(kept: float, weight_decay: float) -> None:
    lam, lr = -2.0, 1e-3
    bound = saddle_rho(None, lam, kept, weight_decay)
    sgd = growth(lam, 0.0, lr, 0.0, weight_decay)
    assert growth(lam, bound, lr, 0.0, weight_decay) / sgd == pytest.approx(kept, rel=2e-3)
    assert growth(lam, 0.98 * bound, lr, 0.0, weight_decay) > kept * sgd
    assert growth(lam, 1.02 * bound, lr, 0.0, weight_decay) < kept * sgd
    assert saddle_rho(3.0, lam, kept, weight_decay) == pytest.approx(3.0 * bound)


def test_saddle_rho_is_zero_where_decay_alone_holds() -> None:
    assert saddle_rho(None, -0.3, 0.5, 0.3) == 0.0
    assert growth(-0.3, 0.0, 0.01, 0.0, 0.31) < 0


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_edge_rho_is_the_last_stable_one(momentum: float, nesterov: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        lam, lr = float(rng.uniform(0.5, 5)), float(rng.uniform(0.02, 0.25))
        bound = edge_rho(None, lam, lr, momentum, nesterov=nesterov)
        if bound == 0:
            assert lr * lam >= stability_edge(momentum, nesterov=nesterov)
            continue
        for share, grows in ((0.97, False), (1.03, True)):
            update = usam(np.array([lam]), share * bound)
            run = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
            with np.errstate(all="ignore"):
                peaks = [
                    max(abs(heavy_ball(update, np.array([1.0]), steps=n + k, **run)[0]) for k in range(3))
                    for n in (400, 700)
                ]
            early, late = peaks
            assert (not late < early) is grows
        assert edge_rho(0.5, lam, lr, momentum, nesterov=nesterov) == pytest.approx(0.5 * bound)
    edge = stability_edge(momentum, nesterov=nesterov)
    assert edge_rho(None, 10.0, 2 * edge / 10.0, momentum, nesterov=nesterov) == 0.0
    assert edge_rho(None, -1.0, 0.1, momentum, nesterov=nesterov) == math.inf


@pytest.mark.parametrize("bound", [lambda v: edge_rho(1.0, v, 0.1, 0.0), lambda v: saddle_rho(1.0, -v)])
def test_bounds_of_a_vanishing_eigenvalue_are_large_not_an_error(bound: Callable[[float], float]) -> None:
    assert bound(1e-189) > 1e100


def test_freeing_batch_size_keeps_half_the_escape_rate_in_noisy_sam() -> None:
    """Mean offset along the negative direction in 64 dimensions of isotropic noise."""
    rng = np.random.default_rng(1)
    dim, rho, lam_min, lr, steps = 64, 0.5, -1.0, 0.05, 40
    limit = freeing_batch_size(float(dim), rho, lam_min, 0.0)
    lam = np.zeros(dim)
    lam[0] = lam_min
    rates = {}
    for share in (0.6, 1.0, 1.6):
        std = math.sqrt(1.0 / (share * limit))

        def update(x: np.ndarray, std: float = std) -> np.ndarray:
            n = std * rng.standard_normal(x.shape)
            g = lam * x + n
            return np.asarray(lam * (x + rho * g / np.linalg.norm(g, axis=-1, keepdims=True)) + n)

        start = np.zeros((4000, dim))
        start[:, 0] = 0.2
        end = heavy_ball(update, start, lr=lr, steps=steps)[:, 0].mean()
        rates[share] = math.log(end / 0.2) / steps / math.log(1 + lr)
    assert rates[1.0] == pytest.approx(0.5, abs=0.05)
    assert rates[0.6] > 0.55
    assert rates[1.6] < 0.45
    assert freeing_batch_size(1.0, 0.1, -1.0, 0.2) == math.inf
    assert freeing_batch_size(1.0, 0.1, -1.0, 0.3) == math.inf


@pytest.mark.parametrize("nesterov", [False, True])
def test_matching_momentum_restores_the_escape_factor(nesterov: bool) -> None:
    rng = np.random.default_rng(2)
    feasible = 0
    for _ in range(60):
        lam, lr, momentum = (
            -float(rng.uniform(0.3, 3)),
            float(rng.uniform(0.01, 0.1)),
            float(rng.choice([0.0, 0.5, 0.9])),
        )
        mu = shifted_eigenvalue(lam, float(rng.uniform(0, 1.2 / abs(lam))))
        gamma = matching_momentum(lam, mu, lr, momentum, nesterov=nesterov)
        if gamma is None:
            continue
        feasible += 1
        assert momentum - 1e-12 <= gamma < 1

        def late_growth(curvature: float, g: float, lr: float = lr) -> float:
            run = {"lr": lr, "momentum": g, "nesterov": nesterov}
            early, late = (heavy_ball(lambda x: curvature * x, np.array([1.0]), steps=n, **run)[0] for n in (900, 1000))
            return math.log(late / early)

        assert late_growth(mu, gamma) == pytest.approx(late_growth(lam, momentum), rel=5e-3)
    assert feasible > 20


@pytest.mark.parametrize("nesterov", [False, True])
def test_matching_momentum_is_none_exactly_where_no_momentum_suffices(nesterov: bool) -> None:
    rng = np.random.default_rng(3)
    grid = [*np.linspace(0, 0.9, 10), 0.99, 0.999, 0.9999]
    outcomes = set()

    def growth(mu: float, lr: float, g: float) -> float:
        """Larger root of the characteristic polynomial."""
        pull = 1 - lr * mu
        coefficients = [1, -(1 + g) * pull, g * pull] if nesterov else [1, -(g + pull), g]
        return float(np.roots(coefficients).real.max())

    for _ in range(120):
        lam, lr, momentum = -1.0, float(rng.uniform(0.01, 0.3)), float(rng.choice([0.0, 0.5, 0.9]))
        mu = -float(10 ** rng.uniform(-5, 0))
        wanted = growth(lam, lr, momentum)
        reachable = max(growth(mu, lr, float(g)) for g in grid)
        if abs(reachable - wanted) < 1e-3 * (wanted - 1):
            continue
        outcomes.add(reachable > wanted)
        assert (matching_momentum(lam, mu, lr, momentum, nesterov=nesterov) is not None) == (reachable > wanted)
    assert outcomes == {True, False}
    assert matching_momentum(-1.0, 0.0, 0.1, 0.9, nesterov=nesterov) is None
    assert matching_momentum(-1.0, 0.3, 0.1, 0.9, nesterov=nesterov) is None
    assert matching_momentum(-1.0, -1.0, 0.1, 0.9, nesterov=nesterov) == pytest.approx(0.9)


def test_noise_momentum_cap_keeps_the_temperature() -> None:
    for momentum in (0.0, 0.5, 0.9, 0.95):
        for batch_ratio in (0.1, 0.25, 0.5, 1.0, 4.0):
            cap = noise_momentum_cap(momentum, batch_ratio)
            assert 0 <= cap <= MAX_MOMENTUM
            if 0 < cap < MAX_MOMENTUM:
                heat = (1 / (batch_ratio * (1 - cap))) / (1 / (1 - momentum))
                assert heat == pytest.approx(4.0)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("radius", "weight_decay"), [(0.0, 0.0), (0.2, 0.0), (0.2, 0.3)])
def test_edge_lr_is_the_last_stable_one(radius: float, weight_decay: float, momentum: float, nesterov: bool) -> None:
    lam = 3.0
    bound = edge_lr(lam, momentum, radius, weight_decay, nesterov=nesterov)
    for share, grows in ((0.97, False), (1.03, True)):
        update = usam(np.array([lam]), radius, weight_decay)
        x = heavy_ball(update, np.array([1.0]), lr=share * bound, momentum=momentum, nesterov=nesterov, steps=2000)
        assert (not abs(x[0]) < 1.0) is grows


def test_edge_lr_has_no_bound_where_nothing_curves_up() -> None:
    assert edge_lr(-1.0, 0.5) == math.inf
    assert edge_lr(2.0, 0.5, math.inf) == 0.0


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_releasing_lr_is_where_the_bounce_stops_holding(momentum: float, nesterov: bool) -> None:
    bound = releasing_lr(-0.7, 3.0, momentum, nesterov=nesterov)
    assert captured_while_bouncing(-0.7, 3.0, 0.999 * bound, momentum, nesterov=nesterov)
    assert not captured_while_bouncing(-0.7, 3.0, 1.001 * bound, momentum, nesterov=nesterov)
    assert releasing_lr(-0.7, -1.0, momentum) == math.inf


@pytest.mark.parametrize(("lam", "lr", "momentum"), [(1.0, 0.01, 0.0), (1.0, 0.01, 0.9), (4.0, 0.3, 0.5)])
def test_what_settles_in_proportion_to_rho_follows_its_decay(lam: float, lr: float, momentum: float) -> None:
    """A mode drawn to rho itself, which falls to a tenth: at the end it is at most a third above it."""
    steps = math.ceil(decay_steps(0.1, lam, lr, momentum))
    x, v = 1.0, 0.0
    for step in range(steps):
        v = momentum * v + lam * (x - 0.1 ** (step / (steps - 1)))
        x -= lr * v
    assert 0.07 < x < 0.14


def test_a_mode_that_does_not_relax_is_never_followed() -> None:
    assert decay_steps(0.1, -1.0, 0.1, 0.0) == math.inf
    assert decay_steps(0.1, 10.0, 0.3, 0.0) == math.inf
    assert decay_steps(0.1, 10.0, 0.1, 0.0) == 1.0
