"""Products that are silently wrong are caught by name or by the float64 check; sound ones pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

import samdiag
from samdiag.curvature.self_check import check_products
from samdiag.types import Problem
from tests.networks import NETWORKS, classification

CPU = torch.device("cpu")


class _Once(torch.autograd.Function):
    """x² whose derivative may be taken once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class _Fused(torch.autograd.Function):
    """tanh whose derivative is computed in the forward pass, as fused kernels do: its own derivative is lost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.slope = 1 - y * y
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return ctx.slope.detach() * grad


class _Layer(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def problem(function: Any) -> Problem:
    torch.manual_seed(0)
    return Problem(
        model=_Layer(function),
        loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]),
        batches=classification((6,), 5),
    )


@pytest.mark.parametrize("function", [_Once.apply, _Fused.apply], ids=["once_differentiable", "precomputed derivative"])
def test_silently_wrong_functions_are_found_and_no_curvature_verdict_is_given(function: Any) -> None:
    diagnosis = samdiag.diagnose(problem(function), rho=0.1, lr=0.1)
    assert diagnosis.measurements is not None
    assert not diagnosis.measurements.self_check.passed
    assert diagnosis.measurements.self_check.reason
    assert "self-check" in next(f.message for f in diagnosis.findings if f.verdict == "undecided")
    assert not {f.verdict for f in diagnosis.findings} & {"saddle-attraction", "saddle-slowdown", "unstable", "minimum"}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sound_networks_pass(name: str, dtype: torch.dtype) -> None:
    p = NETWORKS[name]()
    batch = next(iter(p.batches))
    if dtype == torch.float64:
        p.model.double()
        batch = tuple(t.double() if t.is_floating_point() else t for t in batch)
    p.model.eval()
    result = check_products(p.model, p.loss, batch, device=CPU, dtype=dtype)
    assert result.self_check.passed, result.self_check.reason
    assert result.gradient_rounding is not None


def test_code_that_insists_on_float32_is_checked_without_float64() -> None:
    p = NETWORKS["mlp"]()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0].float()), batch[1])

    p.model.eval()
    result = check_products(p.model, loss, next(iter(p.batches)), device=CPU, dtype=torch.float32)
    assert result.self_check.passed
    assert result.self_check.finite_difference_error is None


def test_a_custom_function_that_no_difference_could_check_is_not_believed() -> None:
    """A float32 tensor in the loss keeps float64 from running: then only a plain graph passes."""
    weight = torch.ones(5)
    p = problem(_Fused.apply)
    held = Problem(model=p.model, loss=lambda m, b: F.cross_entropy(m(b[0]), b[1], weight=weight), batches=p.batches)
    m = samdiag.diagnose(held, rho=0.1, lr=0.1).measurements
    assert m is not None
    assert not m.self_check.passed
    assert "_Fused" in m.self_check.reason
