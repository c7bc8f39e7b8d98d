"""Hessian products by float64 difference quotients of plain gradients: the truth that samdiag takes no part in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from samdiag.types import Problem


class Wide(TorchFunctionMode):
    """Transformers casts to float32 here and there; inside, float64 stays float64, so that a quotient is exact."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        if func is Tensor.float:
            return func(*args).double() if args[0].dtype != torch.float64 else args[0]
        return func(*(torch.float64 if a is torch.float32 else a for a in args), **kwargs)


def difference_quotient(problem: Problem, vector: Tensor) -> Tensor:
    """Hessian times `vector` [num_params] by float64 central differences of plain gradients: samdiag takes no part.

    The problem is used up: its model is in float64 afterwards.
    """
    model = problem.model.eval().double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    parts = vector.double().split([p.numel() for p in parameters])
    step = 1e-5 / float(vector.double().norm())

    def gradient(at: float) -> Tensor:
        total, samples = torch.zeros(len(vector), dtype=torch.float64), 0
        with torch.no_grad():
            for p, x, v in zip(parameters, start, parts, strict=True):
                p.copy_(x + at * v.view_as(x))
        for batch in problem.batches:
            count = len(batch) if isinstance(batch, Tensor) else len(batch[1])
            inputs = batch if isinstance(batch, Tensor) else (batch[0].double(), batch[1])
            model.zero_grad()
            problem.loss(model, inputs).backward()
            own = [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in parameters]
            total += count * torch.cat([g.reshape(-1) for g in own])
            samples += count
        return total / samples

    return (gradient(step) - gradient(-step)) / (2 * step)
