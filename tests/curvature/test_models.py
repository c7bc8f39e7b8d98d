"""Models as people have them: products are right, a diagnosis is made, and the model comes back as it was."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import samdiag
from samdiag.curvature.batches import count_samples, move
from samdiag.curvature.objective import Objective
from samdiag.curvature.wrappers import unwrapped
from samdiag.types import Problem
from tests.curvature.model_cases import CASES, PLAIN
from tests.curvature.quotients import Wide, difference_quotient

CPU = torch.device("cpu")
NEEDS_HELP = {
    "compiled",
    "compiled_inside",
    "compiled_in_place",
    "compiled_function",
    "hf_flex",
    "hf_flash",
}  # to run as it is


@pytest.fixture(autouse=True)
def _others_warnings() -> Iterator[None]:
    """Torch and transformers warn of what the cases use on purpose."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # after eight compilations of one function it would silently run it eager
    with warnings.catch_warnings():
        for text in (
            ".*weight_norm.*deprecated.*",
            ".*enable_nested_tensor.*",
            ".*nested tensors.*",
            ".*spectral_norm.*",
        ):
            warnings.filterwarnings("ignore", message=text)
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf.*")
        warnings.filterwarnings("ignore", message="_compile flag on create_block_mask.*")
        warnings.filterwarnings("ignore", message=".*torch.jit.*is deprecated.*")
        warnings.filterwarnings("ignore", message="Full backward hook is firing.*")
        warnings.filterwarnings("ignore", message=".*RNN module weights are not part of single.*")
        yield


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that a measurement could leave changed, by identity and by bits."""
    configs = [c for m in model.modules() if (c := getattr(m, "config", None)) is not None]
    return {
        "parameters": [(id(p), p.data_ptr(), p.dtype, p.requires_grad, p.grad) for p in model.parameters()],
        "bits": [t.detach().clone() for t in (*model.parameters(), *model.buffers())],
        "attributes": [{k: id(v) for k, v in vars(m).items()} for m in model.modules()],
        "modes": [m.training for m in model.modules()],
        "hooks": [(id(p._backward_hooks), len(p._backward_hooks or ())) for p in model.parameters()],
        "module hooks": [(len(m._backward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "sparse": [getattr(m, "sparse", None) for m in model.modules()],
        "configs": [{k: repr(v) for k, v in vars(c).items()} for c in configs],
        "rng": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "torch": (
            torch.backends.mkldnn.enabled,
            torch.backends.cudnn.enabled,
            torch.backends.mha.get_fastpath_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch._weight_norm,
            torch.nn.utils.weight_norm.__globals__["WeightNorm"],
            torch.autocast.__enter__,
            torch.autocast.__exit__,
            torch.utils.checkpoint.CheckpointFunction,
            torch.backends.cuda.flash_sdp_enabled(),
        ),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for a, b in zip(before.pop("bits"), after.pop("bits"), strict=True):
        assert torch.equal(a, b)
    for key, value in before.items():
        assert after[key] == value, key


@pytest.mark.parametrize("name", CASES)
def test_products_are_the_difference_quotients(name: str) -> None:
    problem, plain = CASES[name](), PLAIN.get(name, CASES[name])()
    vector = torch.randn(
        sum(p.numel() for p in problem.model.parameters() if p.requires_grad),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    precise = Wide() if name.startswith("hf_") else nullcontext()
    with precise:
        truth = difference_quotient(plain, vector)
    batches = [(move(b, CPU, torch.float64), count_samples(b)) for b in problem.batches]
    for memory in (0, None):
        f = Objective(
            unwrapped(problem.model), problem.loss, batches, device=CPU, dtype=torch.float64, graph_memory=memory
        )
        with precise, f.borrowed():
            first, second = f.product(vector), f.product(vector)
        assert torch.linalg.vector_norm(truth) > 0
        assert torch.linalg.vector_norm(first - truth) < 1e-6 * torch.linalg.vector_norm(truth)
        assert torch.allclose(first, second, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_it_is_diagnosed_and_comes_back_as_it_was(name: str) -> None:
    problem = CASES[name]()
    problem.model.train()
    if name not in NEEDS_HELP | {"sync_batch_norm"}:
        problem.loss(problem.model, _first(problem)).backward()  # lazily made state, and gradients that must survive
    before = snapshot(problem.model)
    diagnosis = samdiag.diagnose(problem, rho=0.05, max_products=12, num_eigenvalues=1)
    assert_same(before, snapshot(problem.model))
    m = diagnosis.measurements
    assert diagnosis.failure is None
    assert m is not None
    assert m.self_check.passed, m.self_check.reason
    assert m.self_check.finite_difference_error is not None


def _first(problem: Problem) -> Any:
    batch = next(iter(problem.batches))
    wide = next(problem.model.parameters()).dtype
    return move(batch, CPU, wide)
