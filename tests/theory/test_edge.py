"""The edge of stability and the bounce, against companion matrices and simulated steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samdiag.theory.edge import (
    bounce_amplitude,
    bounce_gradient,
    bounce_ratio,
    bounced_curvature,
    heavy_ball_step_size,
    is_stable,
    largest_multiplier,
    sam_edge,
    stability_edge,
)

from .simulate import heavy_ball, sam, trajectory, usam


def step_radius(mu: complex, lr: float, momentum: float, nesterov: bool = False) -> float:
    """Spectral radius of (x, v) ↦ (x', v'): v' = gamma v + mu x, x' = x − eta v', or x − eta(mu x + gamma v')."""
    pull = (1 + momentum, momentum**2) if nesterov else (1.0, momentum)
    matrix = np.array([[1 - lr * pull[0] * mu, -lr * pull[1]], [mu, momentum]])
    return float(np.abs(np.linalg.eigvals(matrix)).max())


@pytest.mark.parametrize("nesterov", [False, True])
def test_is_stable_is_the_step_matrix_below_one(nesterov: bool) -> None:
    rng = np.random.default_rng(0)
    disagreements, near, count = [], 0, 5000
    for _ in range(count):
        mu = complex(rng.uniform(-1, 6), rng.uniform(-4, 4) * rng.integers(0, 2))
        lr, momentum = float(rng.uniform(0.05, 1)), float(rng.choice([0, rng.uniform(0, 0.999)]))
        radius = step_radius(mu, lr, momentum, nesterov)
        if abs(radius - 1) < 1e-9:
            near += 1
            continue
        if is_stable(mu, lr, momentum, nesterov=nesterov) != (radius < 1):
            disagreements.append((mu, lr, momentum, radius))
    assert disagreements == []
    assert near < count / 100


@pytest.mark.parametrize("nesterov", [False, True])
def test_largest_multiplier_is_the_step_matrix_radius(nesterov: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        mu = complex(rng.uniform(-2, 6), rng.uniform(-3, 3))
        lr, momentum = float(rng.uniform(0.01, 1)), float(rng.uniform(0, 0.99))
        expected = step_radius(mu, lr, momentum, nesterov)
        assert largest_multiplier(mu, lr, momentum, nesterov=nesterov) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_is_stable_without_lr_is_the_limit_of_small_steps(nesterov: bool) -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        mu = complex(rng.uniform(-1, 1), rng.uniform(-1, 1))
        if abs(mu.real) < 1e-3:
            continue
        momentum = float(rng.uniform(0, 0.95))
        expected = step_radius(mu, 1e-6, momentum, nesterov) < 1
        assert is_stable(mu, None, momentum, nesterov=nesterov) == expected


def test_real_curvature_is_stable_up_to_the_edge() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        momentum, nesterov, lr = float(rng.uniform(0, 0.999)), bool(rng.integers(2)), float(rng.uniform(0.01, 2))
        edge = stability_edge(momentum, nesterov=nesterov) / lr
        assert is_stable(edge * 0.999, lr, momentum, nesterov=nesterov)
        assert not is_stable(edge * 1.001, lr, momentum, nesterov=nesterov)
        assert not is_stable(-0.001 * edge, lr, momentum, nesterov=nesterov)


@pytest.mark.parametrize(("momentum", "dampening"), [(0.9, 0.9), (0.9, 0.3), (0.5, 0.5), (0.99, 0.0)])
def test_dampened_momentum_is_a_heavy_ball_with_a_smaller_step(momentum: float, dampening: float) -> None:
    """PyTorch's own SGD, against the heavy ball with v started at (first gradient)/(1 − d), which is what it does."""
    lam, lr, steps = np.array([-0.4, 1.0, 3.0]), 0.05, 60
    weight = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=momentum, dampening=dampening)
    for _ in range(steps):
        weight.grad = torch.tensor(lam) * weight.detach()
        optimizer.step()
    step = heavy_ball_step_size(lr, dampening)
    extra = (lam * 1.0) * (1 / (1 - dampening) - 1) / momentum  # gamma·v_0 + g = g/(1 − d)
    run = trajectory(lambda x: lam * x, np.ones(3), lr=step, momentum=momentum, steps=steps, velocity=extra)
    assert np.allclose(weight.detach().numpy(), run[-1], rtol=1e-12)


def test_the_average_of_gradients_has_its_edge_at_the_smaller_step() -> None:
    """An EMA (dampening = momentum = 0.9) is stable up to lr·lam = 2·1.9/0.1 = 38, the heavy ball up to 3.8."""
    for lr, grows in ((37.5, False), (38.5, True)):
        eta = heavy_ball_step_size(lr, 0.9)
        assert is_stable(1.0, eta, 0.9) is not grows
        x, v = 1.0, 1.0
        sizes = []
        for _ in range(3000):
            v = 0.9 * v + 0.1 * x
            x = x - lr * v
            sizes.append(abs(x))
        assert (max(sizes[-50:]) > max(sizes[1000:1050])) is grows


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


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("eta_lam", [0.05, 0.6, 1.3])
def test_bounce_with_its_gradient_and_curvature(momentum: float, eta_lam: float, nesterov: bool) -> None:
    """On the cycle (velocity included) the next point is its mirror image; the ratio of gradients gives lam back."""
    lam, rho = 5.0, 0.2
    lr = eta_lam / lam
    c = bounce_amplitude(lam, rho, lr, momentum, nesterov=nesterov)
    if not eta_lam < stability_edge(momentum, nesterov=nesterov):
        assert c == float("inf")
        return
    update = sam(np.array([lam]), rho)
    after = float(update(np.array([c]))[0]) / (1 + momentum)  # v_{k+1} = g − gamma v_{k+1}, as v changes sign each step
    points = trajectory(
        update, np.array([c]), lr=lr, momentum=momentum, steps=4, nesterov=nesterov, velocity=np.array([-after])
    )
    assert points[:, 0] == pytest.approx([c, -c, c, -c, c], rel=1e-9)
    gradient = abs(lam * c)
    assert bounce_gradient(lam, rho, lr, momentum, nesterov=nesterov) == pytest.approx(gradient)
    ratio = abs(float(update(np.array([c]))[0])) / gradient
    assert bounce_ratio(lam, lr, momentum, nesterov=nesterov) == pytest.approx(ratio, rel=1e-12)
    assert bounced_curvature(ratio, lr, momentum, nesterov=nesterov) == pytest.approx(lam, rel=1e-12)
    assert sam_edge(gradient, rho, lr, momentum, nesterov=nesterov) == pytest.approx(lam, rel=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_bounce_attracts_from_nearby(nesterov: bool) -> None:
    lam, rho, lr, momentum = 5.0, 0.2, 0.1, 0.5
    c = bounce_amplitude(lam, rho, lr, momentum, nesterov=nesterov)
    points = trajectory(
        sam(np.array([lam]), rho), np.array([[0.9 * c]]), lr=lr, momentum=momentum, steps=400, nesterov=nesterov
    )
    assert np.abs(points[-2:, 0, 0]) == pytest.approx([c, c], rel=1e-9)


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


@pytest.mark.parametrize("nesterov", [False, True])
def test_sam_edge_separates_a_kept_from_a_lost_gradient_scale(nesterov: bool) -> None:
    """With |g| held at a value by another direction, curvature below the edge contracts and above it grows."""
    rng = np.random.default_rng(3)
    for _ in range(25):
        grad, rho, lr = float(rng.uniform(0.1, 5)), float(rng.uniform(0.01, 1)), float(rng.uniform(0.01, 0.3))
        momentum = float(rng.choice([0.0, 0.5, 0.9]))
        edge = sam_edge(grad, rho, lr, momentum, nesterov=nesterov)
        lam = edge * np.array([0.99, 1.01])
        run = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
        early, late = (np.abs(heavy_ball(usam(lam, rho / grad), np.ones(2), steps=n, **run)) for n in (1500, 2000))
        assert list(late > early) == [False, True]
    assert sam_edge(0.0, 0.1, 0.1, 0.0) == 0.0
