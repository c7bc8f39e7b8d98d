"""The quoted-against-corrected table: each row's two values against the functions and runs they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samdiag.theory.comparisons import Comparison, comparisons
from samdiag.theory.diffusion import noise_variance, variance
from samdiag.theory.saddle import effective_radius

from .simulate import heavy_ball, usam

FULL = {
    "eigenvalues": [5.0, -1.0, -3.0],
    "radius": 0.5,
    "lr": 0.01,
    "momentum": 0.9,
    "batch_size": 64,
    "noise": 2.0,
    "steps": 60,
}


def by_start(rows: tuple[Comparison, ...], start: str) -> Comparison:
    return next(row for row in rows if row.name.startswith(start))


def test_the_table_of_a_checkpoint_with_everything_known() -> None:
    rows = comparisons(**FULL)
    assert [row.paper for row in rows] == [
        *["KIM Theorem 1"] * 3,
        "KIM Theorem 2",
        "KIM Sec. on diffusion, C = [H]⁺",
        "KIM Theorem 2",
        "KIM Corollary 1",
        "KIM Theorem 3",
        "KIM Theorem 3, (1−gamma)⁻³",
    ]
    for row in rows:
        assert row.quoted is not None
        assert row.corrected is not None
        assert row.why
    window = by_start(rows, "effective radius from")
    assert (window.quoted, window.corrected) == pytest.approx((1 / 3, 1.0))
    assert by_start(rows, "share of").corrected == 0.5
    drift = by_start(rows, "drift")
    assert (drift.quoted, drift.corrected) == pytest.approx((-0.75, 1.5))
    noise = by_start(rows, "gradient noise")
    assert (noise.quoted, noise.corrected) == pytest.approx((3 / 64, 2 / 64))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_corrected_values_are_what_a_simulated_run_does(nesterov: bool, weight_decay: float) -> None:
    settings_ = {**FULL, "nesterov": nesterov, "weight_decay": weight_decay, "radius": 0.15}
    rows = comparisons(**settings_)
    rng = np.random.default_rng(0)

    def spread(momentum: float, rho: float, nesterov: bool) -> float:
        def update(x: np.ndarray) -> np.ndarray:
            n = math.sqrt(2.0 / 64) * rng.standard_normal(x.shape)
            return np.asarray(-3.0 * (x + rho * (-3.0 * x + n)) + n + weight_decay * x)

        run = {"lr": 0.01, "momentum": momentum, "steps": 60, "nesterov": nesterov}
        return float(np.mean(heavy_ball(update, np.zeros(20000), **run) ** 2))

    plain = by_start(rows, "variance along lambda_min without momentum").corrected
    assert plain == pytest.approx(spread(0.0, 0.15, False), rel=0.05)
    moving = by_start(rows, "variance along lambda_min with momentum").corrected
    assert moving == pytest.approx(spread(0.9, 0.15, nesterov), rel=0.05)
    lacking = by_start(rows, "variance that SAM lacks").corrected
    assert lacking == pytest.approx(spread(0.0, 0.0, False) - plain, rel=0.06)
    assert by_start(rows, "factor that momentum").corrected == pytest.approx(moving / plain)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-5, 5).filter(lambda v: abs(v) > 0.05), min_size=1, max_size=5),
    st.floats(0.01, 3),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.booleans(),
    st.floats(0, 0.5),
)
def test_the_window_and_the_share_agree_with_simulated_usam(
    lam: list[float], rho: float, momentum: float, nesterov: bool, weight_decay: float
) -> None:
    lr = 0.02
    rows = comparisons(
        eigenvalues=lam, radius=rho, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
    )
    if min(lam) >= 0:
        assert rows == ()
        return
    run = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
    update = usam(np.array(lam), rho, weight_decay)
    with np.errstate(all="ignore"):  # the largest of six steps, since the run may oscillate
        early, late = (
            np.max([np.abs(heavy_ball(update, np.ones(len(lam)), steps=n + k, **run)) for k in range(6)], axis=0)
            for n in (300, 600)
        )
    shrinks = (late < early) | (late < 1e-300)
    shift = np.array(lam) * (1 + rho * np.array(lam)) + weight_decay
    edge = (2 * (1 + momentum)) / ((1 + 2 * momentum) if nesterov else 1)
    if (np.abs(shift) < 0.05).any() or (np.abs(lr * shift - edge) < 0.03).any():
        return  # too slow to tell within 300 steps
    negative = np.array(lam) < 0
    assert by_start(rows, "share of").corrected == pytest.approx(float(shrinks[negative].mean()))
    low = by_start(rows, "effective radius from").corrected
    high = by_start(rows, "effective radius up to").corrected
    assert low is not None
    assert high is not None
    if all(v < 0 for v in lam) or weight_decay == 0:
        assert (low < rho < high) is bool(shrinks.all())


def test_what_is_not_known_is_none() -> None:
    rows = comparisons(eigenvalues=[-1.0, 2.0], radius=0.5)
    assert by_start(rows, "effective radius up to").corrected is None
    assert by_start(rows, "gradient noise").corrected is None
    assert len(rows) == 5
    unmeasured = comparisons(**{**FULL, "noise": None})
    assert by_start(unmeasured, "variance along lambda_min with").corrected is None
    assert by_start(unmeasured, "variance that SAM lacks").corrected is None
    assert by_start(unmeasured, "factor that momentum").corrected is not None
    assert len(comparisons(**{**FULL, "momentum": 0.0})) == 7
    assert len(comparisons(**{**FULL, "batch_size": None})) == 5


def test_no_table_without_a_negative_eigenvalue_and_a_trap_at_the_critical_point() -> None:
    assert comparisons(eigenvalues=[0.0, 2.0], radius=0.5) == ()
    rows = comparisons(**{**FULL, "radius": effective_radius(0.1, 0.0)})
    assert by_start(rows, "share of").corrected == 1.0
    assert not any(row.name.startswith(("drift", "variance")) for row in rows)


def test_long_runs_overflow_to_infinity_and_not_to_an_error() -> None:
    rows = comparisons(**{**FULL, "radius": 0.01, "steps": 10**6})
    assert by_start(rows, "variance along lambda_min with").quoted == math.inf
    assert by_start(rows, "variance along lambda_min with").corrected == math.inf
    assert by_start(rows, "variance that SAM lacks").corrected is None
    assert by_start(rows, "factor that momentum").corrected is None


def test_gain_of_momentum_uses_the_same_noise_on_both_sides() -> None:
    row = by_start(comparisons(**{**FULL, "noise": None}), "factor that momentum")
    c = noise_variance(1.0, 64, 0.5, -3.0, ascent="same")
    assert row.corrected == pytest.approx(variance(60, 1.5, 0.01, 0.9, c) / variance(60, 1.5, 0.01, 0.0, c))
