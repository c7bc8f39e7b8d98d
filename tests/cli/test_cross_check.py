"""--cross-check: PyHessian's second opinion on small networks, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import samdiag
from tests.cli import problems
from tests.cli.conftest import Run

NETWORKS = ["problem", "single_batch", "unused", "double", "linear_regression", "bowl", "saddle"]


@pytest.mark.parametrize("more", [(), ("--dtype", "float64")])
@pytest.mark.parametrize("function", NETWORKS)
def test_agrees(function: str, more: tuple[str, ...], work: Path, inspect: Run) -> None:
    state = getattr(problems, function)().model.state_dict()
    save_file({name: value + 0.3 for name, value in state.items()}, "net.safetensors")
    arguments = ("--rho", "0.1", "--problem", f"problems.py:{function}", "--cross-check", "--fail-on", "never")
    ran = inspect("net.safetensors", *arguments, *more, "--format", "json")
    assert ran.code == 0, ran.err
    opinion = ran.report["measurements"]["second_opinion"]
    assert opinion["lambda_max_agrees"], opinion["message"]
    assert opinion["trace_agrees"], opinion["message"]
    text = inspect("net.safetensors", *arguments, *more)
    assert "PyHessian agrees" in " ".join(text.out.split())


def test_no_curvature_at_all(work: Path, inspect: Run) -> None:
    """The loss is linear in the parameters: there is nothing for PyHessian to iterate on."""
    save_file(problems.no_curvature().model.state_dict(), "net.safetensors")
    ran = inspect(
        *("net.safetensors", "--rho", "0.1", "--problem", "problems.py:no_curvature", "--cross-check"),
        *("--format", "json"),
    )
    assert ran.report["failure"] is None, ran.report["failure"]


def test_not_asked_not_given(work: Path, inspect: Run) -> None:
    ran = inspect("runs/a.safetensors", "--rho", "0.1", "--problem", "problems.py:problem", "--format", "json")
    assert ran.report["measurements"]["second_opinion"] is None


@pytest.mark.parametrize("function", ["problem", "unused", "double"])
def test_the_model_comes_back_as_it_was(function: str) -> None:
    problem = getattr(problems, function)()
    problem.model.train()
    parameters = list(problem.model.parameters())
    before = [p.detach().clone() for p in parameters]
    grads = [torch.randn_like(p) for p in parameters]
    for p, g in zip(parameters, grads, strict=True):
        p.grad = g.clone()
    parameters[0].grad = None
    samdiag.diagnose(problem, rho=0.1, cross_check=True)
    assert problem.model.training
    assert parameters[0].grad is None
    for p, value, g in list(zip(parameters, before, grads, strict=True))[1:]:
        assert torch.equal(p, value)
        assert p.grad is not None
        assert torch.equal(p.grad, g)
        assert p.grad.grad_fn is None
