"""Models that cannot be measured: refused by name, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.errors import CannotDecide, UsageError
from samdiag.types import Problem
from tests.curvature.attention_cases import around
from tests.curvature.model_cases import CASES
from tests.curvature.test_traps import open_only, process_group  # noqa: F401


@pytest.mark.filterwarnings("ignore")  # torch calls its own quantisation deprecated
def test_quantised_modules_are_refused_by_name() -> None:
    problem = around(lambda: nn.Linear(8, 8))
    torch.ao.quantization.quantize_dynamic(problem.model, {"body"}, dtype=torch.qint8, inplace=True)
    with pytest.raises(
        UsageError, match=r"body is quantised \(torch\.ao\.nn\.quantized\.dynamic\.modules\.linear"
    ) as refusal:
        open_only(problem)
    assert "before quantisation" in refusal.value.todo


def test_packed_integer_weights_are_refused_by_name() -> None:
    problem = around(lambda: nn.Linear(8, 8))
    problem.model.body.weight = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UsageError, match=r"body\.weight is quantised \(uint8"):
        open_only(problem)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated.*")
@pytest.mark.parametrize("part", [True, False])
def test_scripted_modules_are_refused_by_name_and_left_alone(part: bool) -> None:
    problem = around(lambda: torch.jit.script(nn.Linear(8, 8)) if part else nn.Linear(8, 8))
    model = problem.model if part else torch.jit.trace(problem.model, torch.ones(1, 8))
    model.train()
    with pytest.raises(UsageError, match="body is a TorchScript" if part else "the model is a TorchScript"):
        open_only(Problem(model=model, loss=problem.loss, batches=problem.batches))
    assert model.training


def test_complex_parameters_are_refused_by_name() -> None:
    problem = around(lambda: nn.Linear(8, 8, dtype=torch.complex64))
    with pytest.raises(UsageError, match=r"body\.weight is complex"):
        open_only(problem)


def test_flex_attention_on_the_cpu_is_refused_with_the_way_out() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    def run(body: Any, x: Tensor) -> Tensor:
        q = body(x)[:, None]
        out: Any = flex_attention(q, q, q)
        return out[:, 0].mean(dim=1)

    problem = around(lambda: nn.Linear(8, 8), (16, 8), run)
    with pytest.raises(CannotDecide, match="flex_attention has no derivative on the CPU") as refusal:
        open_only(problem)
    assert "scaled_dot_product_attention" in refusal.value.todo


@pytest.mark.usefixtures("process_group")
def test_synchronised_batch_norm_in_train_mode_is_refused_on_the_cpu() -> None:
    with pytest.raises(CannotDecide, match="SyncBatchNorm has no batch statistics on the CPU"):
        samdiag.diagnose(CASES["sync_batch_norm"](), rho=0.05, mode="train")


@pytest.mark.parametrize("writer", ["max_norm", "clamp"])
def test_a_forward_pass_that_writes_into_parameters_is_refused_by_name(writer: str) -> None:
    class Clamped(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data.clamp_(-0.1, 0.1)
            return super().forward(x)

    if writer == "clamp":
        problem = around(lambda: Clamped(8, 8))
    else:
        model = nn.Sequential(nn.Embedding(9, 4, max_norm=0.1), nn.Flatten(), nn.Linear(12, 5))
        tokens = torch.arange(9).reshape(3, 3)
        problem = Problem(model=model, loss=lambda m, b: F.cross_entropy(m(b), b[:, 0] % 5), batches=[tokens])
    name = "body.weight" if writer == "clamp" else "0.weight"
    with pytest.raises(CannotDecide, match=f"writes into parameter {name}"):
        open_only(problem)


@pytest.mark.parametrize(
    "hole",
    [lambda h: h + (h * 0).abs().pow(1.5), lambda h: h + (h * 0).norm(dim=-1, keepdim=True)],
    ids=["power 1.5 of 0", "norm of 0"],
)
def test_a_second_derivative_that_is_not_a_number_is_said_with_the_parameter(hole: Any) -> None:
    problem = around(lambda: nn.Linear(8, 8), apply=lambda body, x: hole(body(x)))
    with pytest.raises(CannotDecide, match=r"second derivative is NaN or infinite for body\.weight") as refusal:
        samdiag.diagnose(problem, rho=0.05, max_products=6)
    assert "square root" in refusal.value.todo
