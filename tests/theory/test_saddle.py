"""Capture and escape at saddles and maxima, against simulated USAM and normalised SAM."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samdiag.theory.edge import bounce_amplitude, stability_edge
from samdiag.theory.saddle import (
    capture_radius,
    captured_while_bouncing,
    critical_batch_size,
    effective_radius,
    escape_factor,
    escape_rate,
    escape_slowdown,
    fastest_escape_rate,
    retained_escape_rate,
    shifted_eigenvalue,
    usam_window,
)

from .simulate import heavy_ball, noisy_sam, sam, usam


def shrinks(
    lam: np.ndarray,
    rho: np.ndarray | float,
    lr: np.ndarray | float,
    momentum: np.ndarray | float,
    weight_decay: np.ndarray | float = 0.0,
    nesterov: bool = False,
) -> np.ndarray:
    """Which coordinates of simulated USAM go to 0: the largest |x| of 50 late steps against 50 later ones."""
    x, v, update = np.ones_like(lam), np.zeros_like(lam), usam(lam, rho, weight_decay)
    peaks = np.zeros((2, *lam.shape))
    with np.errstate(all="ignore"):
        for step in range(2400):
            g = update(x)
            v = momentum * v + g
            x = x - lr * (g + momentum * v if nesterov else v)
            if 1000 <= step < 1050:
                peaks[0] = np.maximum(peaks[0], np.abs(x))
            elif step >= 2350:
                peaks[1] = np.maximum(peaks[1], np.abs(x))  # NaN (overflow) stays NaN: it grew
        return np.asarray((peaks[1] < peaks[0]) | (peaks[1] < 1e-300))  # underflow: shrunk


def random_saddle(rng: np.random.Generator) -> np.ndarray:
    negative = -np.exp(rng.uniform(-1.5, 1.5, rng.integers(1, 5)))
    positive = np.exp(rng.uniform(-1.5, 1.5, rng.integers(0, 4)))
    return np.concatenate([negative, positive])


@pytest.mark.parametrize("decay", [0.0, 0.6])
@pytest.mark.parametrize("nesterov", [False, True])
def test_usam_window_by_simulation(nesterov: bool, decay: float) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(150):
        lam, lr = random_saddle(rng), float(rng.uniform(0.02, 0.4))
        momentum = float(rng.choice([0.0, 0.5, 0.9]))
        weight_decay = decay * float(np.abs(lam[lam < 0]).min())
        low, high = usam_window(lam, lr, momentum, nesterov=nesterov, weight_decay=weight_decay)
        for rho in (low * 0.97, low * 1.03, high * 0.97, high * 1.03, float(rng.uniform(0, 2 * low))):
            if rho > 0 and min(abs(rho / low - 1), abs(rho / high - 1)) > 0.01:
                cases.append((lam, rho, lr, momentum, low < rho < high, weight_decay))
    width = max(c[0].size for c in cases)
    padded = np.array([np.pad(c[0], (0, width - c[0].size), mode="edge") for c in cases])
    columns = [np.array([[c[i]] for c in cases]) for i in (1, 2, 3, 5)]
    captured = shrinks(padded, *columns, nesterov).all(axis=1)
    expected = np.array([c[4] for c in cases])
    assert [c for c, a, b in zip(cases, captured, expected, strict=True) if a != b] == []
    assert len(cases) > 400
    assert 50 < expected.sum() < len(cases) - 50


def test_the_published_interval_with_lambda_1_alone_is_wrong_at_index_two_and_more() -> None:
    lam = np.array([-3.0, -1.0, 5.0])
    rho, lr = 0.5, 0.01
    assert rho > 1 / 3
    assert not shrinks(lam, rho, lr, 0.0)[1]
    assert usam_window(lam, lr, 0.0)[0] == pytest.approx(1.0)


def test_each_direction_is_captured_exactly_beyond_its_capture_radius() -> None:
    rng = np.random.default_rng(1)
    count = 1500
    lam = -np.exp(rng.uniform(-1.5, 1.5, count))
    decay = np.where(rng.random(count) < 0.3, 0.0, rng.uniform(0, 1.2, count) * np.abs(lam))
    momentum = rng.choice([0.0, 0.5, 0.9], count)
    threshold = np.array([capture_radius(v, w) for v, w in zip(lam, decay, strict=True)])
    rho = threshold * rng.choice([0.97, 1.03, 0.5, 2.0], count)
    rho = np.where(threshold == 0, rng.uniform(0, 1, count) / np.abs(lam), rho)
    mu = np.array([shifted_eigenvalue(*case) for case in zip(lam, rho, decay, strict=True)])
    far = np.abs(mu) > 0.02 * np.abs(lam)
    captured = shrinks(lam, rho, 0.05, momentum, decay)
    assert ((captured == (rho > threshold)) | (threshold == 0))[far].all()
    assert captured[far & (threshold == 0)].all()
    rate = np.array([escape_rate(*case) for case in zip(lam, rho, decay, strict=True)])
    assert (captured == (rate < 0))[far].all()
    assert min(captured[far].sum(), (~captured[far]).sum()) > 300


def test_shifted_eigenvalue_is_what_the_step_sees() -> None:
    rng = np.random.default_rng(2)
    lam, x = rng.normal(size=6), rng.normal(size=6)
    for weight_decay in (0.0, 0.3):
        update = usam(lam, 0.7, weight_decay)(x) / x
        assert np.allclose(update, [shifted_eigenvalue(v, 0.7, weight_decay) for v in lam])
    assert shifted_eigenvalue(-1.0, math.inf) == math.inf
    assert shifted_eigenvalue(0.0, math.inf, 0.1) == 0.1


def test_fastest_escape_rate_is_the_maximum_over_a_grid() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        largest, radius = float(np.exp(rng.uniform(-3, 2))), float(rng.choice([0.0, np.exp(rng.uniform(-3, 3))]))
        weight_decay = float(rng.choice([0.0, rng.uniform(0, 0.5)]))
        grid = np.linspace(0, largest, 4001)
        brute = max(0.0, float((grid * (1 - radius * grid)).max()) - weight_decay)
        assert fastest_escape_rate(largest, radius, weight_decay) == pytest.approx(brute, abs=1e-6 * largest)
        if radius > 0:
            assert fastest_escape_rate(largest, radius) <= 1 / (4 * radius) + 1e-15
    assert fastest_escape_rate(1.0, math.inf) == 0.0


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.4, 0.9, 0.99])
def test_escape_factor_is_the_growth_per_step(momentum: float, nesterov: bool) -> None:
    for eta_lam in (0.003, 0.05, 0.7):
        run = {"lr": eta_lam, "momentum": momentum, "nesterov": nesterov}
        late = heavy_ball(lambda x: -x, np.array([1.0]), steps=401, **run)
        early = heavy_ball(lambda x: -x, np.array([1.0]), steps=400, **run)
        factor = escape_factor(-1.0, eta_lam, momentum, nesterov=nesterov)
        assert late[0] / early[0] == pytest.approx(factor, rel=1e-4)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-5, 5).filter(lambda v: abs(v) > 1e-3), min_size=1, max_size=6), st.floats(0, 3), st.floats(0, 1)
)
def test_retained_escape_rate_is_the_fastest_direction_of_small_steps(
    lam: list[float], radius: float, weight_decay: float
) -> None:
    """Growth of simulated USAM over that of SGD, read off one small step in every direction."""
    share = retained_escape_rate(lam, radius, weight_decay)
    lr, ones = 1e-6, np.ones(len(lam))
    sam_growth, sgd_growth = (
        (float(heavy_ball(usam(np.array(lam), r, weight_decay), ones, lr=lr, steps=1)[np.array(lam) < 0].max()) - 1)
        if min(lam) < 0
        else -1.0
        for r in (radius, 0.0)
    )
    if sgd_growth <= 1e-12:
        assert math.isnan(share) or -min(lam) - weight_decay < 1e-5
        return
    assert share == pytest.approx(max(sam_growth, 0.0) / sgd_growth, abs=1e-6 / (sgd_growth / lr))
    assert 0 <= share <= 1 + 1e-9
    if radius > 0:
        assert share * (-min(lam) - weight_decay) <= 1 / (4 * radius) + 1e-9


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_escape_slowdown_is_the_ratio_of_simulated_escape_times(momentum: float, nesterov: bool) -> None:
    lam, lr = np.array([-2.0, -0.7, 3.0]), 0.02
    for radius, weight_decay in ((0.2, 0.0), (0.45, 0.0), (0.9, 0.0), (0.45, 0.1)):
        expected = escape_slowdown(list(lam), radius, lr, momentum, weight_decay, nesterov=nesterov)
        rates = []
        for r in (0.0, radius):
            run = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
            ends = [
                np.linalg.norm(heavy_ball(usam(lam, r, weight_decay), np.array([1.0, 1.0, 0.0]), steps=n, **run))
                for n in (1500, 1700)
            ]
            rates.append(math.log(ends[1] / ends[0]))
        assert expected == pytest.approx(rates[0] / rates[1], rel=0.02)
    assert escape_slowdown(list(lam), 3.0, lr, momentum, nesterov=nesterov) == math.inf
    assert math.isnan(escape_slowdown([1.0], 0.1, lr, momentum, nesterov=nesterov))
    assert escape_slowdown(list(lam), 0.4, 1e-18, momentum, nesterov=nesterov) == pytest.approx(
        1 / retained_escape_rate(list(lam), 0.4), rel=1e-6
    )


def test_retained_escape_rate_at_its_limits() -> None:
    assert retained_escape_rate([-1.0, -0.5], math.inf) == 0.0
    assert retained_escape_rate([-1.0, 2.0], 0.0) == 1.0
    assert retained_escape_rate([-1.0, -0.2], 1.0) == pytest.approx(0.16)  # the slow direction is the fast one now
    assert math.isnan(retained_escape_rate([], 0.1))
    assert math.isnan(retained_escape_rate([-0.2, 1.0], 0.1, weight_decay=0.3))


@pytest.mark.parametrize("signal", [0.0, 0.5, 2.0])
def test_effective_radius_against_the_exact_mean(signal: float) -> None:
    """mean of rho (1 − (u·q)²)/|g_b| over batches; the square root is good to 2 % from some 30 noise dimensions on."""
    rng = np.random.default_rng(4)
    dim, batch, rho = 64, 16, 0.3
    g = np.zeros(dim)
    g[0] = signal
    per_sample = 1.0
    batches = g + np.sqrt(per_sample / batch) * rng.standard_normal((20000, dim))
    norms = np.linalg.norm(batches, axis=1)
    exact = rho * float(np.mean((1 - (batches[:, 1] / norms) ** 2) / norms))
    assert effective_radius(rho, signal, dim * per_sample, batch) == pytest.approx(exact, rel=0.02)
    assert effective_radius(rho, 2.0) == pytest.approx(rho / 2.0)
    assert effective_radius(rho, 0.0) == math.inf


@pytest.mark.parametrize("signal", [0.0, 0.35])
def test_critical_batch_size_separates_growth_from_decay_in_noisy_sam(signal: float) -> None:
    """Mean of the offset along a negative direction, 64 dimensions of isotropic noise, over many runs."""
    rng = np.random.default_rng(5)
    dim, rho, lam_negative, lr, steps = 64, 0.5, -1.0, 0.05, 60
    lam = np.zeros(dim)
    lam[0] = lam_negative
    push = np.zeros(dim)
    push[1] = signal  # a flat slope: it holds |g| at `signal` and has no curvature of its own
    per_sample = 1.0
    limit = critical_batch_size(dim * per_sample, rho, lam_negative, signal)
    growth = {}
    for share in (0.6, 1.6):
        noise = np.full(dim, per_sample / (share * limit))
        std = np.sqrt(noise)

        def update(x: np.ndarray, std: np.ndarray = std) -> np.ndarray:
            n = std * rng.standard_normal(x.shape)
            g = lam * x + push + n
            return np.asarray(lam * (x + rho * g / np.linalg.norm(g, axis=-1, keepdims=True)) + push + n)

        start = np.zeros((3000, dim))
        start[:, 0] = 0.05
        growth[share] = float(heavy_ball(update, start, lr=lr, steps=steps)[:, 0].mean()) / 0.05
        radius = effective_radius(rho, signal, dim * per_sample, share * limit)
        expected = (1 - lr * shifted_eigenvalue(lam_negative, radius)) ** steps
        assert growth[share] == pytest.approx(expected, rel=0.15)
    assert growth[0.6] > 1.3
    assert growth[1.6] < 0.8


def test_critical_batch_size_is_infinite_where_the_gradient_alone_frees() -> None:
    assert critical_batch_size(3.0, 0.1, -2.0, 0.2) == math.inf
    assert critical_batch_size(3.0, 0.1, -2.0, 0.3) == math.inf
    assert critical_batch_size(3.0, 0.1, -2.0, 0.0) == pytest.approx(3.0 / 0.04)


def test_noisy_sam_is_the_same_step_without_noise() -> None:
    rng = np.random.default_rng(6)
    lam, x = np.array([2.0, -1.0]), np.array([[0.3, 0.1]])
    assert np.allclose(noisy_sam(lam, 0.1, np.zeros(2), rng)(x), sam(lam, 0.1)(x))


def test_normalised_sam_never_leaves_the_trapped_ball_at_small_steps() -> None:
    rng = np.random.default_rng(7)
    for _ in range(15):
        lam, rho = random_saddle(rng), 0.5
        lr = 1e-3 / np.abs(lam).max()
        limit = rho * np.abs(lam[lam < 0]).min()
        starts = rng.normal(size=(20, lam.size))
        starts *= (limit * rng.uniform(0.1, 0.9, 20) / np.linalg.norm(lam * starts, axis=1))[:, None]
        end = heavy_ball(sam(lam, rho), starts, lr=lr, steps=2000)
        assert (np.linalg.norm(lam * end, axis=1) < limit).all()


def test_a_direction_contracts_iff_the_gradient_is_below_rho_lambda() -> None:
    """Normalised SAM, one step: q_j shrinks exactly when |g| < rho|lam_j|."""
    rng = np.random.default_rng(8)
    for _ in range(500):
        lam, x, rho = random_saddle(rng), None, float(rng.uniform(0.05, 1))
        x = rng.normal(size=lam.size)
        norm = float(np.linalg.norm(lam * x))
        after = heavy_ball(sam(lam, rho), x, lr=1e-4, steps=1)
        for j in np.flatnonzero(lam < 0):
            assert (abs(after[j]) < abs(x[j])) == (norm < rho * abs(lam[j]))


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value", "ignore:divide by zero")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_captured_while_bouncing_on_the_simulated_cycle(momentum: float, nesterov: bool) -> None:
    """Two directions, started on the bounce along lam_max: independent of rho, exact to 3 % of the boundary."""
    rng = np.random.default_rng(9)
    seen = {True: 0, False: 0}
    cases = []
    edge = stability_edge(momentum, nesterov=nesterov)
    while len(cases) < 60:
        lam_max, lam_negative = float(rng.uniform(1, 10)), -float(np.exp(rng.uniform(-2, 0.5)))
        lr = float(rng.uniform(0.02, min(1.8, 0.95 * edge))) / lam_max
        margin = abs(lam_negative) * (edge / lr - lam_max) / lam_max**2
        if abs(margin - 1) > 0.03 and 0.1 < margin < 10:
            cases.append((lam_max, lam_negative, lr, float(10 ** rng.uniform(-2, 1))))
    for lam_max, lam_negative, lr, rho in cases:
        c = bounce_amplitude(lam_max, rho, lr, momentum, nesterov=nesterov)
        lam = np.array([lam_max, lam_negative])
        x, tiny = np.array([[c, 1e-9 * c]]), 1e-9 * c
        v = np.array([[-lam_max * (c + rho) / (1 + momentum), 0.0]])
        update = sam(lam, rho)
        for _ in range(500):
            g = update(x)
            v = momentum * v + g
            x = x - lr * (g + momentum * v if nesterov else v)
            if not 1e-3 < abs(x[0, 1]) / tiny < 1e3:
                break
        captured = bool(abs(x[0, 1]) < tiny)
        assert captured is captured_while_bouncing(lam_negative, lam_max, lr, momentum, nesterov=nesterov)
        seen[captured] += 1
    assert min(seen.values()) >= 10


def test_longer_cycles_with_momentum_free_what_the_bounce_would_capture() -> None:
    """The formula speaks of the smallest cycle: a larger one (gamma 0.5) keeps up a larger gradient and frees."""
    lam, rho, momentum = np.array([10.0, -9.79]), 0.1, 0.5
    lr = 0.116
    assert captured_while_bouncing(-9.79, 10.0, lr, momentum)
    c = bounce_amplitude(10.0, rho, lr, momentum)
    starts = np.array([[c, 1e-6 * c], [0.01 * c, 0.01 * c]])
    with np.errstate(all="ignore"):
        end = np.abs(heavy_ball(sam(lam, rho), starts, lr=lr, momentum=momentum, steps=4000))
    assert end[0, 1] < 1e-9 * c
    assert not end[1, 1] < 1e3 * c


def test_a_direction_steeper_than_the_valley_bounces_itself() -> None:
    """|lam_j| > lam_max, the formula's limit: no longer shrinking at small steps, and out of the trap at large ones."""
    for lam_negative, lr, shrinks_, stays in (
        (-0.8, 0.1, True, True),
        (-2.0, 0.1, False, True),
        (-4.0, 0.3, False, False),
    ):
        assert captured_while_bouncing(lam_negative, 1.0, lr, 0.0)
        c = bounce_amplitude(1.0, 0.5, lr, 0.0)
        with np.errstate(all="ignore"):
            end = heavy_ball(sam(np.array([1.0, lam_negative]), 0.5), np.array([[c, 1e-6 * c]]), lr=lr, steps=3000)
        assert bool(abs(end[0, 1]) < 1e-6 * c) is shrinks_
        assert bool(np.abs(end).max() < 10 * c) is stays
