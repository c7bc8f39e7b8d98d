"""The edge of stability and the bounce, against companion matrices and simulated steps."""

from __future__ import annotations

import numpy as np
import pytest

from samdiag.theory.edge import (
    bounce_amplitude,
    bounce_gradient,
    bounced_curvature,
    is_stable,
    largest_multiplier,
    sam_edge,
    stability_edge,
)

from .simulate import heavy_ball, sam, trajectory, usam


def companion_radius(mu: complex, lr: float, momentum: float) -> float:
    """Spectral radius of (x_k, x_{k−1}) ↦ (x_{k+1}, x_k) for x_{k+1} = (1 + gamma − eta·mu) x_k − gamma x_{k−1}."""
    matrix = np.array([[1 + momentum - lr * mu, -momentum], [1, 0]])
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def test_is_stable_is_the_companion_matrix_below_one() -> None:
    rng = np.random.default_rng(0)
    disagreements, near, count = [], 0, 5000
    for _ in range(count):
        mu = complex(rng.uniform(-1, 6), rng.uniform(-4, 4) * rng.integers(0, 2))
        lr, momentum = float(rng.uniform(0.05, 1)), float(rng.choice([0, rng.uniform(0, 0.999)]))
        radius = companion_radius(mu, lr, momentum)
        if abs(radius - 1) < 1e-9:
            near += 1
            continue
        if is_stable(mu, lr, momentum) != (radius < 1):
            disagreements.append((mu, lr, momentum, radius))
    assert disagreements == []
    assert near < count / 100


def test_largest_multiplier_is_the_companion_matrix_radius() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        mu = complex(rng.uniform(-2, 6), rng.uniform(-3, 3))
        lr, momentum = float(rng.uniform(0.01, 1)), float(rng.uniform(0, 0.99))
        assert largest_multiplier(mu, lr, momentum) == pytest.approx(companion_radius(mu, lr, momentum), rel=1e-6)


def test_is_stable_without_lr_is_the_limit_of_small_steps() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        mu = complex(rng.uniform(-1, 1), rng.uniform(-1, 1))
        if abs(mu.real) < 1e-3:
            continue
        momentum = float(rng.uniform(0, 0.95))
        assert is_stable(mu, None, momentum) == (companion_radius(mu, 1e-6, momentum) < 1)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.99])
def test_stability_edge_by_simulation(momentum: float, nesterov: bool) -> None:
    edge = stability_edge(momentum, nesterov=nesterov)
    for share, grows in ((0.99, False), (1.01, True)):
        run = {"lr": share * edge, "momentum": momentum, "nesterov": nesterov}
        early, late = (np.abs(heavy_ball(lambda x: x, np.array([1.0]), steps=n, **run))[0] for n in (1200, 1500))
        assert bool(late > early) is grows


@pytest.mark.parametrize("eta_lam", [0.02, 0.3, 1.0, 1.7])
def test_plain_bounce_is_the_only_attractor_without_momentum(eta_lam: float) -> None:
    lam, rho = 8.0, 0.1
    lr = eta_lam / lam
    c = bounce_amplitude(lam, rho, lr, 0.0)
    starts = c * np.array([[1e-3], [0.3], [1.0], [1.7], [40.0]])
    end = trajectory(sam(np.array([lam]), rho), starts, lr=lr, steps=4000)[-2:, :, 0]
    assert np.allclose(np.abs(end), c, rtol=1e-6)
    assert np.allclose(end[0], -end[1], rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("eta_lam", [0.05, 0.6, 1.5])
def test_bounce_with_its_gradient_and_curvature(momentum: float, eta_lam: float) -> None:
    """On the cycle (velocity included) the next point is its mirror image; the ratio of gradients gives lam back."""
    lam, rho = 5.0, 0.2
    lr = eta_lam / lam
    c = bounce_amplitude(lam, rho, lr, momentum)
    update = sam(np.array([lam]), rho)
    x = np.array([c])
    velocity = -2 * c / lr  # of the step that came from −c
    after = momentum * velocity + float(update(x)[0])
    assert c - lr * after == pytest.approx(-c, rel=1e-12)
    gradient = abs(lam * c)
    assert bounce_gradient(lam, rho, lr, momentum) == pytest.approx(gradient)
    ratio = abs(float(update(x)[0])) / gradient
    assert bounced_curvature(ratio, lr, momentum) == pytest.approx(lam, rel=1e-12)
    assert sam_edge(gradient, rho, lr, momentum) == pytest.approx(lam, rel=1e-9)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_no_cycle_is_smaller_than_the_bounce_and_some_are_larger(momentum: float) -> None:
    """With momentum longer cycles coexist; the amplitude given is the smallest, as documented."""
    lam, rho, lr = 10.0, 0.1, 0.005
    c = bounce_amplitude(lam, rho, lr, momentum)
    starts = c * np.geomspace(1e-2, 60, 60)[:, None]
    path = trajectory(sam(np.array([lam]), rho), starts, lr=lr, momentum=momentum, steps=4000)
    amplitude = np.abs(path[-400:, :, 0]).max(axis=0) / c
    assert amplitude.min() > 1 - 1e-6
    assert amplitude.max() > 2


def test_no_finite_bounce_beyond_the_edge_of_gradient_descent() -> None:
    assert bounce_amplitude(10.0, 0.1, 0.2, 0.0) == float("inf")
    assert bounce_amplitude(10.0, 0.1, 0.21, 0.0) == float("inf")
    end = heavy_ball(sam(np.array([10.0]), 0.1), np.array([[0.01]]), lr=0.21, steps=2000)
    assert abs(end[0, 0]) > 1e3
    assert bounce_gradient(-3.0, 0.1, 0.1, 0.0) == 0.0


def test_sam_edge_separates_a_kept_from_a_lost_gradient_scale() -> None:
    """With |g| held at a value by another direction, curvature below the edge contracts and above it grows."""
    rng = np.random.default_rng(3)
    for _ in range(25):
        grad, rho, lr = float(rng.uniform(0.1, 5)), float(rng.uniform(0.01, 1)), float(rng.uniform(0.01, 0.3))
        momentum = float(rng.choice([0.0, 0.5, 0.9]))
        edge = sam_edge(grad, rho, lr, momentum)
        lam = edge * np.array([0.99, 1.01])
        gradient = usam(lam, rho / grad)
        early = np.abs(heavy_ball(gradient, np.ones(2), lr=lr, momentum=momentum, steps=1500))
        late = np.abs(heavy_ball(gradient, np.ones(2), lr=lr, momentum=momentum, steps=2000))
        assert list(late > early) == [False, True]
    assert sam_edge(0.0, 0.1, 0.1, 0.0) == 0.0
