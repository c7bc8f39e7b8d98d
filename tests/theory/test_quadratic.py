"""The quadratic simulation against PyTorch's SGD, against closed forms, and against runs without early endings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from samdiag.theory.quadratic import BLOCK, DIVERGES, DRIFTS, LEAVES, LOOK, STAYS, exit_gradient, simulate
from samdiag.theory.saddle import captured_while_bouncing, freeing_momentum, usam_window

from .simulate import heavy_ball, sam

Array = NDArray[np.float64]


def torch_path(
    lam: Array, x: Array, rho: float, *, normalised: bool, steps: int, lr: float, momentum: float, **options: Any
) -> Array:
    """[steps, d] the points of torch.optim.SGD on SAM's (or USAM's) gradient, its momentum buffer empty at first."""
    w = torch.tensor(x, requires_grad=True)
    curvature = torch.tensor(lam)
    optimiser = torch.optim.SGD([w], lr=lr, momentum=momentum, **options)
    if momentum:
        optimiser.state[w]["momentum_buffer"] = torch.zeros_like(w)
    points = []
    for _ in range(steps):
        g = curvature * w.detach()
        e = rho * g / g.norm() if normalised else rho * g
        w.grad = curvature * (w.detach() + e)
        optimiser.step()
        points.append(w.detach().numpy().copy())
    return np.array(points)


OPTIMISERS = {
    "plain": {"momentum": 0.0},
    "heavy ball": {"momentum": 0.8},
    "Nesterov": {"momentum": 0.8, "nesterov": True},
    "EMA": {"momentum": 0.8, "dampening": 0.8},
    "weight decay": {"momentum": 0.5, "weight_decay": 0.1},
    "all": {"momentum": 0.7, "nesterov": True, "weight_decay": 0.2},
}


@pytest.mark.parametrize("normalised", [True, False], ids=["sam", "usam"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_step_is_pytorchs(name: str, normalised: bool) -> None:
    lam, x = np.array([-0.7, 0.3, 1.9, -0.2]), np.array([0.05, -0.2, 0.1, 0.3])
    options = OPTIMISERS[name]
    course = simulate(
        lam[None],
        (lam * x)[None],
        rho=0.6,
        lr=0.02,
        normalised=normalised,
        steps=64,
        **options,  # type: ignore[arg-type]
    )
    points = torch_path(lam, x, 0.6, normalised=normalised, steps=64, lr=0.02, **options)  # type: ignore[arg-type]
    seen = [2**k for k in range(len(course.path) - 1)]
    assert seen[-1] >= 32
    for displacement, step in zip(course.path, seen, strict=False):
        assert x + displacement == pytest.approx(points[step - 1], abs=1e-12)


def test_the_centre_of_the_quadratic_need_not_be_where_weight_decay_pulls_to() -> None:
    """f = ½ Σ lam (x − c)²: the gradient is lam(x − c), the decay pulls x to 0."""
    lam, x, centre, lr = np.array([-0.5, 1.0]), np.array([0.3, 0.2]), np.array([0.25, -0.4]), 0.05
    course = simulate(
        lam[None],
        (lam * (x - centre))[None],
        position=x[None],
        rho=0.2,
        lr=lr,
        weight_decay=0.1,
        momentum=0.5,
        steps=32,
    )
    v, point = np.zeros(2), x.copy()
    for _ in range(32):
        g = lam * (point - centre)
        v = 0.5 * v + lam * (point - centre + 0.2 * g / np.linalg.norm(g)) + 0.1 * point
        point = point - lr * v
    assert x + course.path[-1] == pytest.approx(point, abs=1e-12)


def test_beyond_the_exit_gradient_an_outward_motion_never_turns() -> None:
    """500 random saddles, started just beyond the limit of one direction and at rest: all leave, none comes back."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        dim = int(rng.integers(1, 5))
        lam = rng.uniform(0.1, 3, dim) * rng.choice([-1, 1], dim)
        lam[0] = -abs(lam[0])
        rho, wd = float(rng.uniform(0.01, 1)), float(rng.choice([0, 0.5])) * float(np.abs(lam).min())
        gamma, kind = float(rng.choice([0, 0.5, 0.9])), str(rng.choice(["heavy ball", "Nesterov", "EMA"]))
        lr = float(rng.uniform(0.01, 0.5)) / float(np.abs(lam).max())
        x = rng.normal(size=dim) * rho * 0.1
        limit = exit_gradient(lam[None], np.zeros((1, dim)), np.array([[rho]]), wd)[0]
        x[0] = 1.01 * limit[0] / lam[0]
        course = simulate(
            lam[None],
            (lam * x)[None],
            rho=rho,
            lr=lr,
            momentum=gamma,
            nesterov=gamma > 0 and kind == "Nesterov",
            dampening=gamma if kind == "EMA" else 0.0,
            weight_decay=wd,
            steps=LOOK,
        )
        own = np.abs(lam[0] * (x[0] + course.path[:, 0]))
        assert course.outcome[0] in (LEAVES, DIVERGES)
        assert (np.diff([abs(lam[0] * x[0]), *own]) >= 0).all()


def test_the_limit_is_tight_without_other_directions() -> None:
    """Along one negative direction |x| = rho is the boundary itself: inside it stays, outside it leaves."""
    lam, rho = np.full((2, 1), -1.0), 0.3
    inside_and_outside = lam * np.array([[0.999 * rho], [1.001 * rho]])
    course = simulate(lam, inside_and_outside, rho=rho, lr=0.01, steps=4000)
    assert course.outcome.tolist() == [STAYS, LEAVES]


def test_capture_while_bouncing_is_told_on_both_sides() -> None:
    """A6, independent of rho: lam (4, −1.5) and (4, −0.7) at eta 0.1."""
    for rho in (0.01, 0.1, 1.0):
        lam = np.array([[4.0, -1.5], [4.0, -0.7]])
        c = 0.1 * 4 * rho / (2 - 0.4)
        course = simulate(lam, lam * np.array([c, 1e-4 * rho]), rho=rho, lr=0.1, steps=5000)
        assert course.outcome.tolist() == [STAYS, LEAVES]
        assert [captured_while_bouncing(v, 4.0, 0.1, 0.0) for v in (-1.5, -0.7)] == [True, False]


def test_momentum_frees_a_maximum_beyond_its_threshold() -> None:
    lr = 0.2
    for momentum, expected in ((freeing_momentum(-1.0, lr) - 0.05, STAYS), (0.95, LEAVES)):
        starts = -np.linspace(0.005, 0.03, 8)[:, None]
        course = simulate(np.full((8, 1), -1.0), starts, rho=0.1, lr=lr, momentum=momentum, steps=10_000)
        assert set(course.outcome.tolist()) == {expected}


def test_usam_stays_inside_its_window_only() -> None:
    rng = np.random.default_rng(1)
    told = []
    for _ in range(60):
        lam = rng.uniform(0.3, 2, 3) * np.array([-1, rng.choice([-1, 1]), 1])
        low, high = usam_window(lam.tolist(), 0.1, 0.5)
        for rho, expected in ((0.8 * low, LEAVES), (0.5 * (low + high), STAYS), (1.1 * high, DIVERGES)):
            start = (lam * 1e-3)[None]
            course = simulate(lam[None], start, rho=rho, lr=0.1, momentum=0.5, normalised=False, steps=20_000)
            assert course.outcome[0] == expected, (lam, rho, low, high)
            told.append(expected)
    assert len(told) == 180


def test_a_step_beyond_the_edge_diverges() -> None:
    for lr, expected in ((1.9, STAYS), (2.1, DIVERGES)):
        assert simulate(np.ones((1, 1)), np.full((1, 1), 0.1), rho=0.1, lr=lr, steps=5000).outcome[0] == expected


def test_runs_side_by_side_are_runs_one_by_one() -> None:
    rng = np.random.default_rng(2)
    lam = rng.uniform(-1, 2, (12, 3))
    g, rho = rng.normal(size=(12, 3)) * 0.1, rng.uniform(0.01, 1, 12)
    together = simulate(lam, g, rho=rho, lr=0.1, momentum=0.9, steps=3000)
    for i in range(12):
        alone = simulate(lam[i : i + 1], g[i : i + 1], rho=rho[i], lr=0.1, momentum=0.9, steps=3000)
        assert (alone.outcome[0], alone.steps[0]) == (together.outcome[i], together.steps[i])


def random_saddles(count: int, seed: int) -> list[tuple[Array, Array, float, float, float]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        dim = int(rng.integers(1, 5))
        lam = np.exp(rng.uniform(-1.5, 1.5, dim)) * rng.choice([-1, 1], dim)
        lam[0] = -abs(lam[0])
        lr = float(np.exp(rng.uniform(-4, 0))) / float(np.abs(lam).max())
        found.append(
            (lam, rng.normal(size=dim) * 0.1, float(rng.uniform(0.05, 1)), lr, float(rng.choice([0, 0.5, 0.9])))
        )
    return found


def test_a_settled_run_stays_for_good() -> None:
    """Runs that ended early because they had settled, followed five times as long by a loop that ends nothing."""
    settled = 0
    for lam, x, rho, lr, momentum in random_saddles(60, 3):
        course = simulate(lam[None], (lam * x)[None], rho=rho, lr=lr, momentum=momentum, steps=4000)
        if course.settled[0]:
            settled += 1
            end = heavy_ball(sam(lam, rho), x, lr=lr, momentum=momentum, steps=5 * int(course.steps[0]))
            assert np.abs(lam * end).max() < 100 * np.abs(lam).max() * max(rho, float(np.linalg.norm(x)))
            assert course.outcome[0] == STAYS
    assert settled > 12


def test_a_run_that_still_grows_at_the_horizon_is_not_said_to_stay() -> None:
    """lam −0.995 is free by half a percent on this bounce (A6: −1): cut off early it drifts, followed on it leaves."""
    lam, lr, rho = np.array([[4.0, -0.995]]), 0.1, 0.1
    c = lr * 4 * rho / (2 - lr * 4)
    start = lam * np.array([c, 1e-6])
    assert simulate(lam, start, rho=rho, lr=lr, steps=20 * BLOCK).outcome[0] == DRIFTS
    assert simulate(lam, start, rho=rho, lr=lr, steps=200_000).outcome[0] == LEAVES


def test_chaos_in_a_trap_is_not_taken_for_growth() -> None:
    """Two negative directions in a maximum's trap move up and down for ever."""
    rng = np.random.default_rng(4)
    starts = rng.uniform(-0.02, 0.02, (16, 2)) * np.array([-1.0, -0.6])
    course = simulate(np.tile([-1.0, -0.6], (16, 1)), starts, rho=0.1, lr=0.3, steps=10_000)
    assert set(course.outcome.tolist()) == {STAYS}
