"""The truth for what catalogs name: a dense float64 Hessian by autograd beside samdiag's two ends, and no network."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from samdiag.curvature.batches import count_samples, join, move
from samdiag.pipeline import diagnose
from samdiag.types import Problem


class Bound(nn.Module):
    """A model whose trainable parameters are the pieces of one flat vector."""

    def __init__(self, model: nn.Module, point: Tensor) -> None:
        super().__init__()
        own = {name: value for name, value in model.named_parameters() if value.requires_grad}
        parts = torch.split(point, [value.numel() for value in own.values()])
        named = {name: part.view_as(own[name]) for name, part in zip(own, parts, strict=True)}
        self.call = lambda *args, **kwargs: functional_call(model, named, args, kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


def dense_hessian(problem: Problem) -> Tensor:
    """Over the trainable parameters, of the mean over all samples, in float64."""
    model = problem.model.double().eval()
    moved = [move(batch, torch.device("cpu"), torch.float64) for batch in problem.batches]
    pieces = [(batch, count_samples(batch)) for batch in moved]
    joined = join(pieces)  # one batch is as good as many, where they fit together, and faster
    pieces = pieces if joined is None else [joined]
    total = sum(count for _, count in pieces)

    def of(point: Tensor) -> Tensor:
        bound = Bound(model, point)
        return torch.stack([count / total * problem.loss(bound, batch) for batch, count in pieces]).sum()

    point = torch.cat([value.detach().flatten() for value in model.parameters() if value.requires_grad])
    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(of, point)


def check_ends(problem: Problem) -> None:
    """samdiag's largest and smallest eigenvalue are those of the dense Hessian."""
    found = diagnose(problem, rho=0.05, dtype="float64", tol=1e-6, until="converged", num_eigenvalues=1).measurements
    assert found is not None
    truth = torch.linalg.eigvalsh(dense_hessian(problem))
    assert found.num_params == len(truth)
    scale = 1e-5 * float(truth.abs().max())
    assert found.lambda_max.value == pytest.approx(float(truth[-1]), abs=scale)
    assert found.lambda_min.value == pytest.approx(float(truth[0]), abs=scale)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects, or looks a host's name up, fails the test."""

    def refused(*_: Any) -> None:
        raise AssertionError("something connected to the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
