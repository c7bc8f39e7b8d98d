"""The vectorised optimiser against torch, and the search for thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from samdiag.gallery.dynamics import cosine, first_true, narrowed, quadratic, run, steps, zero_crossing
from samdiag.gallery.training import Recipe, train

LAM = np.array([2.0, -1.0, 0.5])


class Quadratic(nn.Module):
    """½ Σ lam w², as a network without inputs."""

    def __init__(self, point: np.ndarray) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(point))

    def forward(self, _inputs: torch.Tensor) -> torch.Tensor:
        return 0.5 * (torch.tensor(LAM) * self.w**2).sum()


@pytest.mark.parametrize("variant", ["sam", "usam"])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_it_takes_the_steps_of_the_reference(variant: str, momentum: float) -> None:
    start = np.array([0.3, -0.2, 0.5])
    model = Quadratic(start)
    recipe = Recipe(steps=25, lr=0.1, rho=0.2, momentum=momentum, variant=variant)  # type: ignore[arg-type]
    data = TensorDataset(torch.zeros(1), torch.zeros(1))
    list(train(model, data, recipe, criterion=lambda outputs, _targets: outputs))
    end = run(quadratic(LAM), start, rho=0.2, lr=0.1, num_steps=25, momentum=momentum, variant=variant)
    assert np.allclose(end, model.w.detach().numpy(), rtol=1e-12)


def test_runs_do_not_touch_each_other() -> None:
    starts = np.random.default_rng(0).normal(size=(3, 4))
    rhos, lrs = np.array([0.0, 0.1, 0.2, 0.3]), np.array([0.1, 0.05, 0.1, 0.2])
    together = run(quadratic(LAM), starts, rho=rhos, lr=lrs, num_steps=10)
    for j in range(4):
        alone = run(quadratic(LAM), starts[:, j], rho=rhos[j], lr=lrs[j], num_steps=10)
        assert np.array_equal(together[:, j], alone)


def test_gradient_descent_is_rho_0_and_a_vanishing_gradient_stays() -> None:
    assert np.allclose(run(quadratic([2.0]), [1.0], rho=0.0, lr=0.1, num_steps=3), 0.8**3)
    assert np.array_equal(run(quadratic([2.0, -2.0]), [0.0, 0.0], rho=0.5, lr=0.1, num_steps=3), [0.0, 0.0])


def test_a_run_that_overflows_does_so_in_silence() -> None:
    end = run(quadratic([1.0]), [[1.0, 1.0]], rho=0.0, lr=[5.0, 0.1], num_steps=2000)
    assert not np.isfinite(end[0, 0])
    assert np.isfinite(end[0, 1])


def test_no_steps_have_no_end() -> None:
    with pytest.raises(ValueError, match="num_steps"):
        run(quadratic([1.0]), [1.0], rho=0.0, lr=0.1, num_steps=0)


def test_the_cosine_is_minus_one_inside_the_trap() -> None:
    """Saddle ±2, on the falling axis at 0.3 < rho: x+ lies beyond the saddle."""
    step = next(steps(quadratic([2.0, -2.0]), [0.0, 0.3], rho=0.5, lr=0.01, num_steps=1))
    assert cosine(step) == pytest.approx(-1.0)


def test_thresholds_are_narrowed_and_interpolated() -> None:
    assert first_true(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == (2.0, 3.0)
    assert first_true(np.array([1.0, 2.0]), np.array([True, True])) == (-math.inf, 1.0)
    assert first_true(np.array([1.0, 2.0]), np.array([True, False])) == (2.0, math.inf)
    low, high = narrowed(lambda x: x > math.pi, 0.0, 10.0, rounds=3, points=11)
    assert low <= math.pi < high
    assert high - low == pytest.approx(0.01)
    assert zero_crossing([0.0, 1.0, 2.0], [-1.0, -0.5, 0.5]) == pytest.approx(1.5)
    assert math.isnan(zero_crossing([0.0, 1.0], [1.0, 2.0]))
