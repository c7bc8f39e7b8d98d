"""The model comes back exactly: bits, buffers, modes, grads, RNG, backend switches, also after a failure."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import samdiag
from samdiag.errors import SamdiagError
from samdiag.types import Problem
from tests.networks import NETWORKS, classification


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "pointers": [(id(p), p.data_ptr(), p.dtype, p.requires_grad) for p in model.parameters()],
        "grads": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "buffers": [(id(b), b.data_ptr()) for b in model.buffers()],
        "rng": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "backends": (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled),
        "default": torch.get_default_dtype(),
    }


def assert_equal(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in before["state"].items():
        assert torch.equal(value.nan_to_num(), after["state"][key].nan_to_num()), key
    for a, b in zip(before["grads"], after["grads"], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a[0] == b[0]
            assert torch.equal(a[1], b[1])
    for key in ("pointers", "modes", "buffers", "rng", "backends", "default"):
        assert before[key] == after[key], key


@pytest.mark.parametrize("name", ["mlp", "tied", "unused", "batch_norm", "lstm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_comes_back_bit_for_bit(name: str, dtype: str) -> None:
    problem = NETWORKS[name]()
    problem.model.train()
    problem.loss(problem.model, next(iter(problem.batches))).backward()
    before = snapshot(problem.model)
    samdiag.diagnose(problem, rho=0.1, lr=0.1, dtype=dtype, cross_check=name == "unused")
    assert_equal(before, snapshot(problem.model))


def test_it_comes_back_after_a_failure_too() -> None:
    problem = NETWORKS["batch_norm"]()
    problem.model.train()
    calls = 0

    def failing(model: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        torch.rand(1)
        if calls > 30:
            raise ValueError("the thirtieth time is one too many")
        return F.cross_entropy(model(batch[0]), batch[1])

    before = snapshot(problem.model)
    with pytest.raises(SamdiagError, match="thirtieth"):
        samdiag.diagnose(Problem(model=problem.model, loss=failing, batches=problem.batches), rho=0.1)
    assert_equal(before, snapshot(problem.model))


def test_half_precision_weights_are_analysed_in_float32_and_stay_what_they_are() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).bfloat16()
    before = snapshot(model)
    problem = Problem(model=model, loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches=classification((6,), 5))
    m = samdiag.diagnose(problem, rho=0.1).measurements
    assert m is not None
    assert m.self_check.passed
    assert m.self_check.finite_difference_error is not None
    assert m.self_check.finite_difference_error < 1e-3
    assert_equal(before, snapshot(model))


def test_gradient_hooks_of_the_model_survive() -> None:
    """DDP hangs its reducer on the gradient accumulators: a change of dtype on the model would orphan it for good."""
    problem = NETWORKS["mlp"]()
    parameter = next(problem.model.parameters())
    calls: list[int] = []
    accumulator = parameter.view_as(parameter).grad_fn.next_functions[0][0]
    accumulator.register_hook(lambda *_: calls.append(1))
    samdiag.diagnose(problem, rho=0.1)
    before = len(calls)
    problem.loss(problem.model, next(iter(problem.batches))).backward()
    assert len(calls) == before + 1


def test_a_buffer_that_was_none_is_none_again() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 5)
            self.register_buffer("cache", None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.cache = torch.ones(1)
            out: torch.Tensor = self.layer(x)
            return out

    model = Caching()
    samdiag.diagnose(
        Problem(model=model, loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches=classification((6,), 5)), rho=0.1
    )
    assert model.cache is None
    assert "cache" not in model.state_dict()
