"""The papers' formulas as printed, next to simulated runs: the numbers in the docstrings of `quoted` are these."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.theory.diffusion import early_variance, escape_exponent, noise_variance, variance
from samdiag.theory.quoted import (
    displacement_of_theorem_3,
    drift_of_theorem_2,
    early_gap,
    exact_variance,
    fisher_noise,
    gap_of_corollary_1,
    interval_of_theorem_1,
    variance_of_theorem_2,
)
from samdiag.theory.saddle import shifted_eigenvalue, usam_window

from .simulate import heavy_ball, usam


def captured(lam: np.ndarray, rho: float, lr: float) -> bool:
    """Whether simulated USAM ends nearer to the saddle in every direction."""
    with np.errstate(all="ignore"):
        early, late = (np.abs(heavy_ball(usam(lam, rho), np.ones(lam.size), lr=lr, steps=n)) for n in (400, 600))
        return bool(((late < early) | (late < 1e-300)).all())


def test_theorem_1_at_index_2() -> None:
    lam, rho, lr = np.array([-3.0, -1.0, 5.0]), 0.5, 0.01
    low, high = interval_of_theorem_1(lam)
    assert (low, high) == (pytest.approx(1 / 3), math.inf)
    assert low < rho < high
    assert not captured(lam, rho, lr)
    assert usam_window(lam, lr, 0.0)[0] == pytest.approx(1.0)
    assert captured(lam, 1.03, lr)


def test_share_of_random_saddles_that_theorem_1_misjudges() -> None:
    """rho log-uniform over a factor 10 above 1/|lambda_1|, quoted "captured": 60 % of those of index 2 to 4 are not."""
    rng = np.random.default_rng(0)
    for index, share in ((1, 0.0), (2, 0.6)):
        draws = 1500
        lam, rho = np.zeros((draws, 7)), np.zeros((draws, 1))
        for i in range(draws):
            count = 1 if index == 1 else int(rng.integers(2, 5))
            negative = -np.exp(rng.uniform(-1.5, 1.5, count))
            values = np.concatenate([negative, np.exp(rng.uniform(-1.5, 1.5, rng.integers(1, 4)))])
            lam[i] = np.pad(values, (0, 7 - values.size), mode="edge")
            rho[i] = interval_of_theorem_1(values)[0] * float(np.exp(rng.uniform(0.02, math.log(10))))
        # far below the edge of stability, which the theorem leaves out
        lr = 0.1 / np.abs(lam * (1 + rho * lam)).max(axis=1, keepdims=True)
        early, late = (np.abs(heavy_ball(usam(lam, rho), np.ones_like(lam), lr=lr, steps=n)) for n in (400, 600))
        held = ((late < early) | (late < 1e-300)).all(axis=1)
        assert 1 - held.mean() == pytest.approx(share, abs=0.04)


def test_theorem_1_has_no_upper_end_but_a_run_has() -> None:
    lam, lr = np.array([-1.0, 2.0]), 0.1
    high = usam_window(lam, lr, 0.0)[1]
    assert interval_of_theorem_1(lam)[1] == math.inf
    assert captured(lam, 0.98 * high, lr)
    assert not captured(lam, 1.02 * high, lr)
    assert interval_of_theorem_1([1.0, 2.0]) == (0.0, 0.0)


def run_usam(
    lam: float,
    rho: float,
    lr: float,
    batch: int,
    steps: int,
    *,
    noise: float = 1.0,
    same: bool = True,
    momentum: float = 0.0,
    runs: int = 20000,
    seed: int = 0,
) -> np.ndarray:
    """Where USAM on ½ lam x² is after `steps` from the saddle, the same seed giving the same noise."""
    rng = np.random.default_rng(seed)

    def update(x: np.ndarray) -> np.ndarray:
        n = math.sqrt(noise / batch) * rng.standard_normal(x.shape)
        return np.asarray(lam * (x + rho * (lam * x + (n if same else 0.0))) + n)

    return heavy_ball(update, np.zeros(runs), lr=lr, momentum=momentum, steps=steps)


@pytest.mark.parametrize(("rho", "quoted", "exact"), [(2.0, 0.2328, 7.849e-5), (0.3, 0.007876, 0.014398)])
def test_theorem_2_against_the_simulated_variance(rho: float, quoted: float, exact: float) -> None:
    lam, lr, batch, steps = -1.0, 0.01, 64, 400
    assert variance_of_theorem_2(lr * steps, lam, rho, lr, batch) == pytest.approx(quoted, rel=1e-3)
    assert exact_variance(steps, lam, rho, lr, 0.0, 1.0, batch) == pytest.approx(exact, rel=1e-3)
    end = run_usam(lam, rho, lr, batch, steps)
    assert float(np.mean(end**2)) == pytest.approx(exact, rel=0.03)


def test_theorem_2_never_captures() -> None:
    for lam in (-0.1, -1.0, -7.0):
        for rho in (0.5, 1.5, 30.0):
            assert drift_of_theorem_2(lam, rho) <= 0
    assert drift_of_theorem_2(-1.0, 2.0) == -1.0
    assert shifted_eigenvalue(-1.0, 2.0) == 1.0
    assert captured(np.array([-1.0]), 2.0, 0.01)
    assert variance_of_theorem_2(1e6, -1.0, 2.0, 0.01, 64) == math.inf


def test_theorem_2_is_right_for_sgd_with_the_noise_it_assumes() -> None:
    """At rho = 0 nothing is wrong but the noise: the SDE's variance against 2000 small steps."""
    lam, lr, steps = -1.5, 1e-4, 2000
    exact = variance(steps, lam, lr, 0.0, fisher_noise(lam) / 8)
    assert variance_of_theorem_2(lr * steps, lam, 0.0, lr, 8) == pytest.approx(exact, rel=1e-3)
    assert variance_of_theorem_2(0.2, 0.0, 0.5, lr, 8) == 0.0
    assert variance_of_theorem_2(0.2, -1e-14, 0.5, lr, 8) == pytest.approx(lr * 0.2 * 1e-14 / 8)


@pytest.mark.parametrize(("same", "coefficient"), [(False, 1.01), (True, 193.0)])
def test_corollary_1_has_the_wrong_coefficient(same: bool, coefficient: float) -> None:
    """lam −1, rho 0.1, |lam|t = 0.01, c = |lam|/B: the simulated gap over eta·t²|lam|³rho/B, with common noise."""
    lam, rho, lr, batch, steps = -1.0, 0.1, 1e-4, 32, 100
    time = lr * steps
    unit = lr * time**2 * abs(lam) ** 3 * rho / batch
    assert gap_of_corollary_1(time, lam, rho, lr, batch) / unit == pytest.approx(2.0)
    ascent = "same" if same else "full"
    c = [noise_variance(1.0, batch, r, lam, ascent=ascent) for r in (0.0, rho)]
    v = [variance(steps, shifted_eigenvalue(lam, r), lr, 0.0, n) for r, n in zip((0.0, rho), c, strict=True)]
    assert (v[0] - v[1]) / unit == pytest.approx(coefficient, rel=0.01)
    assert early_gap(time, lam, rho, lr, 1.0 / batch, ascent=ascent) == pytest.approx(v[0] - v[1], rel=0.02)
    sgd, sam = (run_usam(lam, r, lr, batch, steps, same=same) for r in (0.0, rho))
    assert float(np.mean(sgd**2 - sam**2)) / unit == pytest.approx(coefficient, rel=0.05)


def test_along_positive_curvature_one_batch_makes_sam_spread_further() -> None:
    lam, rho, lr, batch, steps = 1.0, 0.1, 1e-4, 32, 100
    sgd, sam = (run_usam(lam, r, lr, batch, steps) for r in (0.0, rho))
    gap = float(np.mean(sgd**2 - sam**2))
    assert gap < 0
    assert early_gap(lr * steps, lam, rho, lr, 1 / batch) == pytest.approx(gap, rel=0.05)


def test_larger_batches_shrink_the_gap_and_leave_the_ratio() -> None:
    gaps, ratios = [], []
    for batch in (16, 64, 256):
        sgd, sam = (exact_variance(100, -1.0, r, 1e-3, 0.0, 1.0, batch) for r in (0.0, 0.1))
        gaps.append(sgd - sam)
        ratios.append(sam / sgd)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] == pytest.approx(16 * gaps[2])
    assert ratios == pytest.approx([ratios[0]] * 3)


@pytest.mark.parametrize(("steps", "printed", "mended", "exact"), [
    (10, 4001, 4620, 276.0), (100, 40080, 44030, 28600), (1000, 4.08e5, 4.12e5, 3.96e5),
])  # fmt: skip
def test_theorem_3_against_the_simulated_displacement(steps: int, printed: float, mended: float, exact: float) -> None:
    """gamma 0.95, eta|lam| = 1e-6, in units of eta²c: from rest, as a run starts."""
    lam, lr, gamma = -1e-3, 1e-3, 0.95
    unit = lr**2 * abs(lam)
    time = lr * steps
    assert displacement_of_theorem_3(time, lam, 0.0, lr, gamma, 1) / unit == pytest.approx(printed, rel=2e-3)
    assert displacement_of_theorem_3(time, lam, 0.0, lr, gamma, 1, relaxation="mended") / unit == pytest.approx(
        mended, rel=2e-3
    )
    assert exact_variance(steps, lam, 0.0, lr, gamma, abs(lam), 1) / unit == pytest.approx(exact, rel=2e-3)
    end = run_usam(lam, 0.0, lr, 1, steps, noise=abs(lam), momentum=gamma, runs=10000 if steps < 1000 else 2000)
    assert float(np.mean(end**2)) / unit == pytest.approx(exact, rel=0.05 if steps < 1000 else 0.1)


def test_the_first_term_of_theorem_3_is_a_velocity_in_equilibrium() -> None:
    """(1 − e)²/2 is what a start with the velocity's own variance c/(1 − gamma²) adds; from rest it is subtracted."""
    gamma, steps = 0.98, 60
    e, tau = math.exp(-(1 - gamma) * steps), (1 - gamma) * steps
    started = gamma**2 * (1 - gamma**steps) ** 2 / ((1 - gamma) ** 2 * (1 - gamma**2))
    assert started * (1 - gamma) ** 3 == pytest.approx((1 - e) ** 2 / 2, rel=0.04)
    rest = early_variance(steps, 1.0, gamma, 1.0)
    assert rest * (1 - gamma) ** 3 == pytest.approx(tau - (1 - e) - (1 - e) ** 2 / 2, rel=0.06)
    rng = np.random.default_rng(1)
    v = rng.standard_normal(20000) / math.sqrt(1 - gamma**2)
    x = np.zeros(20000)
    for _ in range(steps):
        v = gamma * v + rng.standard_normal(20000)
        x = x - v
    assert float(np.mean(x**2)) == pytest.approx(rest + started, rel=0.05)


def test_the_gain_of_momentum_is_not_the_third_power() -> None:
    """gamma 0.95: (1 − gamma)⁻³ = 8000; the simulated variance gains 1, 27.6 and 286 at N = 1, 10, 100."""
    gains = [early_variance(n, 1.0, 0.95, 1.0) / n for n in (1, 10, 100)]
    assert gains == pytest.approx([1.0, 27.6, 285.9], rel=1e-3)
    assert early_variance(10**7, 1.0, 0.95, 1.0) / 10**7 == pytest.approx(400, rel=1e-3)
    assert pytest.approx(8000) == (1 - 0.95) ** -3
    assert escape_exponent(-1.0, 1e-4, 0.9999999) <= 0.01
    still, moving = (run_usam(0.0, 0.0, 1.0, 1, 100, momentum=g, runs=10000) for g in (0.0, 0.95))
    assert float(np.mean(moving**2) / np.mean(still**2)) == pytest.approx(285.9, rel=0.06)


def test_theorem_3_lets_momentum_carry_a_captured_run_away() -> None:
    """lam −1, rho 2, gamma 0.9: captured (mu = +1) with a finite stationary variance; printed, it grows for ever."""
    lam, rho, lr, gamma = -1.0, 2.0, 0.01, 0.9
    printed = [displacement_of_theorem_3(lr * n, lam, rho, lr, gamma, 64) for n in (500, 1000)]
    exact = [exact_variance(n, lam, rho, lr, gamma, 1.0, 64) for n in (500, 1000)]
    assert printed[1] > 1e30 * printed[0]
    assert exact[1] == pytest.approx(exact[0], rel=1e-6)
    end = run_usam(lam, rho, lr, 64, 500, momentum=gamma, runs=5000)
    assert float(np.mean(end**2)) == pytest.approx(exact[0], rel=0.1)


def network_noise(kind: str, steps: int, seed: int) -> np.ndarray:
    """qᵀCq/|lam| over the eigenvectors of a 2-4-1 tanh network's Hessian with |lam| above 1e-3 of the largest."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((80, 2))
    y = np.sin(2 * x[:, 0]) * x[:, 1] + 0.1 * rng.standard_normal(80)

    def gradients(w: np.ndarray) -> np.ndarray:
        """[80, 17] of each sample's loss: ½(out − y)², or the logistic loss of out for the label y > 0."""
        hidden = np.tanh(x @ w[:8].reshape(4, 2).T + w[8:12])
        out = hidden @ w[12:16] + w[16]
        residual = out - y if kind == "squares" else 1 / (1 + np.exp(-out)) - (y > 0)
        back = residual[:, None] * w[12:16] * (1 - hidden**2)
        inner = (back[:, :, None] * x[:, None, :]).reshape(80, 8)
        return np.concatenate([inner, back, residual[:, None] * hidden, residual[:, None]], axis=1)

    w = 0.5 * rng.standard_normal(17)
    for _ in range(steps):
        w = w - 0.3 * gradients(w).mean(axis=0)
    h = 1e-5
    rows = [(gradients(w + h * e).mean(axis=0) - gradients(w - h * e).mean(axis=0)) / (2 * h) for e in np.eye(17)]
    lam, vectors = np.linalg.eigh((np.array(rows) + np.array(rows).T) / 2)
    each = gradients(w)
    noise = (((each - each.mean(axis=0)) @ vectors) ** 2).mean(axis=0)
    kept = np.abs(lam) > 1e-3 * np.abs(lam).max()
    return np.asarray(noise[kept] / np.array([fisher_noise(v) for v in lam[kept]]))


@pytest.mark.parametrize("kind", ["squares", "cross-entropy"])
def test_the_noise_of_small_networks_is_not_the_hessian(kind: str) -> None:
    """Off by more than a factor of 2 in most directions, and by up to some hundred."""
    ratios = np.concatenate([network_noise(kind, steps, seed) for seed in range(3) for steps in (0, 150)])
    assert float(np.mean((ratios > 2) | (ratios < 0.5))) > 0.6
    assert max(ratios.max(), 1 / ratios.min()) > 30


def test_the_noise_is_the_hessian_for_a_well_specified_likelihood_at_its_optimum() -> None:
    """Linear regression with unit noise: the case the assumption is taken from."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200000, 3)) * np.array([1.0, 2.0, 0.5])
    truth = rng.normal(size=3)
    residual = rng.standard_normal(200000)
    weights = np.linalg.lstsq(x, x @ truth + residual, rcond=None)[0]
    each = (x @ weights - (x @ truth + residual))[:, None] * x
    lam, vectors = np.linalg.eigh(x.T @ x / len(x))
    assert ((each @ vectors) ** 2).mean(axis=0) == pytest.approx([fisher_noise(v) for v in lam], rel=0.03)
