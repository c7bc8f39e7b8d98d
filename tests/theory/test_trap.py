"""The trapped ball of normalised SAM: never left at the stated step size, left outside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samdiag.theory.trap import direction_contracts, trapped_ball_radius, trapped_ball_step_size

from .simulate import heavy_ball, sam

negatives = st.lists(st.floats(-5, -0.1), min_size=1, max_size=4)
positives = st.lists(st.floats(0.1, 5), max_size=4)


@settings(max_examples=80, deadline=None)
@given(negatives, positives, st.floats(0.01, 3), st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_the_ball_is_invariant_up_to_the_stated_step(
    negative: list[float], positive: list[float], rho: float, weight_decay: float, seed: int
) -> None:
    """Not a small-step statement: at the largest step allowed, from anywhere inside, for every step of the run."""
    lam = np.array(negative + positive)
    ball = trapped_ball_radius(list(lam), rho, weight_decay)
    lr = trapped_ball_step_size(list(lam), weight_decay)
    rng = np.random.default_rng(seed)
    starts = rng.normal(size=(30, lam.size))
    limit = ball if math.isfinite(ball) else 1.0
    starts *= (limit * rng.uniform(0.01, 0.999, 30) / np.linalg.norm(lam * starts, axis=1))[:, None]
    if math.isinf(ball):
        assert all(v + weight_decay >= 0 for v in lam)
        return
    x, update = starts, sam(lam, rho, weight_decay)
    for _ in range(60):
        x = x - lr * update(x)
        assert (np.linalg.norm(lam * x, axis=1) <= ball * (1 + 1e-9)).all()


def test_just_outside_the_ball_some_direction_leaves() -> None:
    rng = np.random.default_rng(1)
    for _ in range(15):
        lam = np.concatenate([-np.exp(rng.uniform(-1, 1, 2)), np.exp(rng.uniform(-1, 1, 2))])
        weight_decay = float(rng.choice([0.0, 0.3])) * float(np.abs(lam[:2]).min())
        rho = 0.4
        ball = trapped_ball_radius(list(lam), rho, weight_decay)
        weakest = int(np.argmin([v**2 / (abs(v) - weight_decay) if v < 0 else math.inf for v in lam]))
        for share, leaves in ((1.03, True), (0.97, False)):
            x = np.zeros((1, 4))
            x[0, weakest] = share * ball / abs(lam[weakest])
            end = heavy_ball(sam(lam, rho, weight_decay), x, lr=1e-3, steps=600)
            assert bool(abs(end[0, weakest]) > abs(x[0, weakest])) is leaves


def test_a_step_beyond_the_stated_one_can_leave() -> None:
    """A maximum beside a steep valley: from a tiny gradient one step goes eta·rho·lam_max², outside the ball."""
    lam, rho = np.array([-0.5, 4.0]), 1.0
    bound = trapped_ball_step_size(list(lam))
    assert bound == pytest.approx(0.5 / 16)
    ball = trapped_ball_radius(list(lam), rho)
    x = np.array([[0.0, 1e-9]])
    for share, outside in ((0.98, False), (1.05, True)):
        after = heavy_ball(sam(lam, rho), x, lr=share * bound, steps=1)
        assert bool(np.linalg.norm(lam * after) > ball) is outside


def test_direction_contracts_by_one_simulated_step() -> None:
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(500):
        lam, rho = rng.normal(size=4), float(rng.uniform(0.05, 1))
        weight_decay = float(rng.choice([0.0, 0.2]))
        x = rng.normal(size=(1, 4))
        norm = float(np.linalg.norm(lam * x))
        after = heavy_ball(sam(lam, rho, weight_decay), x, lr=1e-5, steps=1)
        for j in range(4):
            shrinks = bool(abs(after[0, j]) < abs(x[0, j]))
            outcomes.add(shrinks)
            assert direction_contracts(float(lam[j]), rho, norm, weight_decay) is shrinks
    assert outcomes == {True, False}
    assert direction_contracts(-1.0, 0.1, 0.0)
    assert not direction_contracts(0.0, 0.1, 0.0)


def test_limits_without_negative_directions() -> None:
    assert trapped_ball_radius([1.0, 2.0], 0.1) == math.inf
    assert trapped_ball_radius([-0.3, 2.0], 0.1, weight_decay=0.4) == math.inf
    assert trapped_ball_radius([-3.0, -0.5, 2.0], 0.1) == pytest.approx(0.05)
    assert trapped_ball_step_size([1.0, 2.0]) == pytest.approx(0.5)
    assert trapped_ball_step_size([]) == math.inf
