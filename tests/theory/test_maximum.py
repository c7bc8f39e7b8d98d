"""Momentum at a maximum: when full-batch normalised SAM leaves it, against simulated runs."""

from __future__ import annotations

import numpy as np
import pytest

from samdiag.theory.saddle import escape_factor, freeing_momentum, momentum_frees_maximum

from .simulate import heavy_ball, sam, trajectory


def share_that_leaves(
    lam: list[float], lr: float, momentum: float, rng: np.random.Generator, nesterov: bool = False
) -> float:
    """Of 30 starts at random inside the trapped region, those that normalised SAM leaves within 6000 steps."""
    rho = 0.1
    starts = rho * rng.uniform(-0.5, 0.5, (30, len(lam)))
    with np.errstate(all="ignore"):
        run = {"lr": lr, "momentum": momentum, "steps": 6000, "nesterov": nesterov}
        end = heavy_ball(sam(np.array(lam), rho), starts, **run)
        return float(np.mean(~(np.linalg.norm(end, axis=1) < 30 * rho)))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("eta_lam", [0.1, 0.2, 0.4])
def test_momentum_frees_a_one_dimensional_maximum(eta_lam: float, nesterov: bool) -> None:
    """Necessary to the digit; for every start it takes some 0.08 more."""
    rng = np.random.default_rng(10)
    threshold = freeing_momentum(-1.0, eta_lam, nesterov=nesterov)
    assert threshold == pytest.approx(1 - eta_lam) or nesterov
    for below in (0.1, 0.02, 0.003):
        assert not momentum_frees_maximum(-1.0, eta_lam, threshold - below, nesterov=nesterov)
        assert share_that_leaves([-1.0], eta_lam, threshold - below, rng, nesterov) == 0.0
    above = min(threshold + 0.08, 0.5 + 0.5 * threshold)
    assert momentum_frees_maximum(-1.0, eta_lam, above, nesterov=nesterov)
    if not nesterov or eta_lam == 0.4:  # with Nesterov and small steps few starts leave (4 % at eta|lam| 0.1)
        assert share_that_leaves([-1.0], eta_lam, above, rng, nesterov) == 1.0


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("eta_lam", [0.05, 0.2, 0.5, 0.8])
def test_freeing_momentum_is_where_the_last_step_from_the_ridge_gets_across(eta_lam: float, nesterov: bool) -> None:
    """The grazing run itself: on the unstable manifold of +rho, its last point on that side just above 0."""
    rho, threshold = 1.0, freeing_momentum(-1.0, eta_lam, nesterov=nesterov)
    for momentum, leaves in ((threshold - 0.004, False), (threshold + 0.004, True)):
        big = escape_factor(-1.0, eta_lam, momentum, nesterov=nesterov)
        x = 1e-12  # deviation −rho from +rho, which grows by `big` a step
        following = rho - big * (rho - x)
        v = np.array([_velocity(x, following, rho, eta_lam, momentum, nesterov)])
        path = trajectory(
            sam(np.array([-1.0]), rho),
            np.array([[x]]),
            lr=eta_lam,
            momentum=momentum,
            steps=400,
            nesterov=nesterov,
            velocity=v,
        )
        assert path[1, 0, 0] == pytest.approx(following, rel=1e-9)
        with np.errstate(all="ignore"):
            assert bool((path[:40, 0, 0] < -1.05 * rho).any()) is leaves


def _velocity(x: float, following: float, rho: float, lr: float, momentum: float, nesterov: bool) -> float:
    """v at x > 0 from which the next point is `following`, on −½x² under SAM."""
    g = -(x - rho)
    step = (x - following) / lr
    return ((step - g) / momentum - g) / momentum if nesterov else (step - g) / momentum


def test_freeing_momentum_at_its_limits() -> None:
    assert freeing_momentum(-1.0, 1.5) == freeing_momentum(-1.0, 1.0, nesterov=True) == 0.0
    assert freeing_momentum(-2.0, 0.1) == pytest.approx(0.8)
    assert freeing_momentum(-1.0, 0.02, nesterov=True) == pytest.approx(0.9944, abs=1e-4)
    grid = np.linspace(0.001, 0.999, 200)
    heavy, nesterov = ([freeing_momentum(-1.0, s, nesterov=n) for s in grid] for n in (False, True))
    assert all(a < b < 1 for a, b in zip(heavy, nesterov, strict=True))
    assert nesterov == sorted(nesterov, reverse=True)


def test_momentum_frees_an_isotropic_maximum_in_more_dimensions() -> None:
    rng = np.random.default_rng(11)
    for lam in ([-1.0, -1.0], [-1.0, -1.0, -1.0]):
        assert share_that_leaves(lam, 0.2, 0.84, rng) > 0.8
        assert share_that_leaves(lam, 0.2, 0.78, rng) == 0.0


def test_a_maximum_with_distinct_eigenvalues_holds_beyond_the_one_dimensional_threshold() -> None:
    """The formula is about one direction alone: at 1 − eta|lambda_min| + 0.02 distinct curvatures hold every start."""
    rng = np.random.default_rng(12)
    assert momentum_frees_maximum(-1.0, 0.2, 0.82)
    assert share_that_leaves([-1.0, -0.7, -0.4], 0.2, 0.82, rng) == 0.0
    assert share_that_leaves([-1.0, -0.5], 0.1, 0.92, rng) < 0.1
    assert share_that_leaves([-1.0, -0.7, -0.4], 0.2, 0.98, rng) > 0.9


def test_one_positive_direction_voids_the_maximum_rule() -> None:
    rng = np.random.default_rng(13)
    assert momentum_frees_maximum(-1.0, 0.2, 0.9)
    assert share_that_leaves([-1.0], 0.2, 0.9, rng) == 1.0
    assert share_that_leaves([-1.0, 1.0], 0.2, 0.9, rng) < 1.0
