"""Every trap of second derivatives in torch: wrong or refused where the handling is off, right where it is on.

A row that fails because torch has got better says that its handling may go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.curvature import restoring, self_check, substitutes
from samdiag.curvature.batches import count_samples, move
from samdiag.curvature.objective import Objective
from samdiag.curvature.self_check import check_products
from samdiag.errors import CannotDecide
from samdiag.measure.opening import opened
from samdiag.measure.settings import MeasureSettings
from samdiag.types import Problem
from tests.curvature.attention_cases import around
from tests.curvature.model_cases import CASES, PLAIN
from tests.curvature.quotients import Wide, difference_quotient
from tests.curvature.test_models import _others_warnings  # noqa: F401
from tests.curvature.test_self_check import _Fused, _Once
from tests.curvature.test_self_check import problem as with_function
from tests.networks import NETWORKS, classification, cross_entropy

CPU = torch.device("cpu")
RIGHT, WRONG = 3e-5, 1e-3  # relative errors: what float32 leaves, and what it does not explain


def product_error(name: str) -> float:
    """Relative error of a float32 product of `Objective` against float64 difference quotients of plain gradients."""
    plain = PLAIN.get(name, CASES[name])()
    size = sum(p.numel() for p in plain.model.parameters() if p.requires_grad)
    vector = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with Wide() if name.startswith("hf_") else nullcontext():
        truth = difference_quotient(plain, vector)
    problem = CASES[name]()
    batches = [(move(b, CPU, torch.float32), count_samples(b)) for b in problem.batches]
    with Objective(problem.model, problem.loss, batches, device=CPU, dtype=torch.float32).borrowed() as f:
        return float(torch.linalg.vector_norm(f.product(vector) - truth) / torch.linalg.vector_norm(truth))


def open_only(problem: Problem) -> Any:
    with opened(problem, MeasureSettings(rho=0.05)) as ready:
        return ready


def nothing(*_: Any) -> Any:
    return nullcontext()


REFUSED = [  # case, the handling, what torch says without it
    ("sdpa", "math_attention", "derivative for aten::_scaled_dot_product"),
    ("multihead_attention", "math_attention", "derivative for aten::_scaled_dot_product"),
    ("encoder_layer", "math_attention", "derivative for aten::_scaled_dot_product"),
    ("masked_encoder", "math_attention", "derivative for aten::_scaled_dot_product"),
    ("hf_gpt2", "math_attention", "derivative for aten::_scaled_dot_product"),
    ("hf_flex", "eager_transformers", "FlexAttention does not support backward on CPU"),
    ("hf_flash", "eager_transformers", "flash|StopIteration"),
    ("sparse_embedding", "dense_embeddings", "SparseTensorImpl"),
    ("compiled", "uncompiled", "double backward|create_graph=False"),
    ("compiled_inside", "uncompiled", "double backward|create_graph=False"),
    ("compiled_in_place", "uncompiled", "double backward|create_graph=False"),
    ("compiled_function", "uncompiled", "double backward|create_graph=False"),
]


@pytest.mark.parametrize(("name", "handling", "message"), REFUSED, ids=[f"{n}-{h}" for n, h, _ in REFUSED])
def test_without_its_handling_torch_refuses(
    name: str, handling: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert product_error(name) < RIGHT
    monkeypatch.setattr(substitutes, handling, nothing)
    with pytest.raises(Exception, match=message):
        product_error(name)


def forward_over_reverse(problem: Problem) -> Tensor:
    """Hessian times ones [num_params] by torch.func, inside the handlings."""
    model = problem.model.eval()
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    ones = {k: torch.ones_like(v) for k, v in parameters.items()}

    def loss(p: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, p, (problem.batches[0][0],)), problem.batches[0][1])

    with substitutes.substitutes(model):
        product = torch.func.jvp(torch.func.grad(loss), (parameters,), (ones,))[1]
    return torch.cat([product[k].reshape(-1) for k in parameters])


@pytest.mark.parametrize(
    ("name", "handling", "message"),
    [
        ("lstm", "plain_recurrence", "forward AD with mkldnn_rnn_layer"),
        ("sdpa", "math_attention", "forward AD with _scaled_dot_product"),
    ],
)
def test_forward_over_reverse_needs_the_handling_too(
    name: str, handling: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = CASES[name]()
    first = Problem(model=CASES[name]().model, loss=problem.loss, batches=problem.batches[:1])
    size = sum(p.numel() for p in problem.model.parameters())
    truth = difference_quotient(first, torch.ones(size))
    product = forward_over_reverse(problem).double()
    assert torch.linalg.vector_norm(product - truth) < RIGHT * torch.linalg.vector_norm(truth)
    monkeypatch.setattr(substitutes, handling, nothing)
    with pytest.raises(Exception, match=message):
        forward_over_reverse(problem)


SILENT = [
    ("reentrant_checkpoint", "nonreentrant_checkpoints"),
    ("old_weight_norm", "plain_weight_norm"),
    ("new_weight_norm", "plain_weight_norm"),
    ("autocast_inside", "no_autocast"),
    ("gradient_hooks", "no_gradient_hooks"),
]


@pytest.mark.parametrize(("name", "handling"), SILENT)
def test_without_its_handling_the_product_is_silently_wrong(
    name: str, handling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert product_error(name) < RIGHT
    monkeypatch.setattr(substitutes, handling, nothing)
    assert product_error(name) > WRONG


@pytest.mark.parametrize("function", [_Once.apply, _Fused.apply], ids=["once_differentiable", "precomputed derivative"])
def test_custom_functions_that_are_wrong_are_found_by_name_and_nothing_else_would(
    function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = with_function(function)

    def check() -> Any:
        return check_products(p.model, p.loss, next(iter(p.batches)), device=CPU, dtype=torch.float32).self_check

    found = check()
    assert not found.passed
    assert found.finite_difference_error > 0.01
    if function == _Once.apply:
        assert "the custom autograd function _Once is marked once_differentiable" in found.reason
    else:
        assert "the custom autograd function _Fused" in found.reason
        assert found.symmetry_error < 1e-5  # symmetry and repeatability alone see nothing
        monkeypatch.setattr(self_check, "_central_difference_error", lambda *_: (0.0, torch.zeros(1)))
        assert check().passed


def test_a_right_custom_function_passes() -> None:
    p = CASES["right_function"]()
    found = check_products(p.model, p.loss, next(iter(p.batches)), device=CPU, dtype=torch.float32).self_check
    assert found.passed, found.reason


def test_one_step_size_alone_is_fooled_by_a_kink(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ReLU that switches within 1e-5 of the point: the quotient over it is wrong, and smaller steps are right."""

    class Kinked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 0.5, 2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return (1 + 1e4 * F.relu(self.w[0] - 1 + 2e-7)) * (self.w * x).sum(dim=1) ** 2

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def check() -> Any:
        return check_products(
            Kinked(), lambda m, b: m(b.to(m.w.dtype)).mean(), x, device=CPU, dtype=torch.float64
        ).self_check

    assert check().passed, check().reason
    monkeypatch.setattr(self_check, "STEPS", (1e-5,))
    assert not check().passed


# ---------------------------------------------------------------- modes and statistics


@pytest.mark.parametrize("memory", [0, None])
def test_batch_norm_in_train_mode_drifts_unless_its_statistics_are_left_alone(
    memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drift() -> float:
        problem = CASES["batch_norm"]()
        norm = problem.model.body[1]
        batches = [(b, len(b[1])) for b in problem.batches]
        f = Objective(
            problem.model, problem.loss, batches, device=CPU, dtype=torch.float32, graph_memory=memory, train_mode=True
        )
        with f.borrowed():
            before = norm.running_mean.clone()
            f.product(torch.ones_like(f.flat))
            return float((norm.running_mean - before).abs().max())

    assert drift() == 0.0
    monkeypatch.setattr(
        "samdiag.curvature.objective.batch_statistics", lambda model: _training(restoring.batch_norms(model))
    )
    assert drift() > 0.0


def _training(norms: list[Any]) -> Any:
    for norm in norms:
        norm.training = True
    return nullcontext()


def test_dropout_is_off_and_would_be_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = CASES["dropout"]()
    problem.model.train()
    assert samdiag.diagnose(problem, rho=0.05, max_products=4).failure is None
    monkeypatch.setattr(nn.Module, "eval", lambda self: self)
    with pytest.raises(CannotDecide, match=r"not deterministic.*it calls dropout with training=True"):
        samdiag.diagnose(problem, rho=0.05, max_products=4)


@pytest.mark.parametrize(
    ("noise", "name"),
    [
        (lambda h: F.dropout(h, 0.3), "dropout with training=True"),
        (lambda h: torch.dropout(h, 0.3, train=True), "torch.dropout with train=True"),
        (lambda h: h + torch.randn_like(h), "randn_like"),
        (
            lambda h: F.scaled_dot_product_attention(h[None], h[None], h[None], dropout_p=0.5)[0],
            "scaled_dot_product_attention with dropout_p > 0",
        ),
    ],
)
def test_hard_wired_noise_is_named(noise: Any, name: str) -> None:
    problem = around(lambda: nn.Linear(8, 8), apply=lambda body, x: noise(body(x)))
    with pytest.raises(CannotDecide, match="not deterministic") as refusal:
        samdiag.diagnose(problem, rho=0.05)
    assert f"it calls {name}" in refusal.value.what
    assert "training=self.training" in refusal.value.todo


# ---------------------------------------------------------------- precision


def test_half_precision_products_are_wrong_and_are_not_used() -> None:
    problem = CASES["bfloat16_weights"]()
    parameters = list(problem.model.parameters())
    vector = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(0))
    x, y = problem.batches[0]
    loss = cross_entropy(problem.model, (x.bfloat16(), y))
    grads = torch.autograd.grad(loss, parameters, create_graph=True)
    parts = [v.view(p.shape).bfloat16() for v, p in zip(vector.split([p.numel() for p in parameters]), parameters)]  # noqa: B905
    raw = torch.cat([h.reshape(-1) for h in torch.autograd.grad(grads, parameters, parts)]).double()
    one = Problem(model=problem.model, loss=problem.loss, batches=[(x, y)])
    with Objective(one.model, one.loss, [((x, y), len(y))], device=CPU, dtype=torch.float32).borrowed() as f:
        product = f.product(vector).double()
    truth = difference_quotient(one, vector)
    assert torch.linalg.vector_norm(product - truth) < 1e-5 * torch.linalg.vector_norm(truth)
    assert torch.linalg.vector_norm(raw - truth) > WRONG * torch.linalg.vector_norm(truth)


def test_autocast_around_the_call_is_off_too() -> None:
    problem = around(lambda: nn.Linear(8, 8))
    plain = samdiag.diagnose(problem, rho=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = samdiag.diagnose(problem, rho=0.05)
        assert torch.is_autocast_enabled("cpu")
    assert plain.measurements is not None
    assert cast.measurements is not None
    assert cast.measurements.lambda_max == plain.measurements.lambda_max
    assert any("autocast around the call was off" in note for note in cast.measurements.notes)


# ---------------------------------------------------------------- parameters


def test_unused_and_frozen_parameters_crash_plain_torch_and_are_zero_rows_here() -> None:
    problem = NETWORKS["unused"]()
    loss = problem.loss(problem.model, problem.batches[0])
    with pytest.raises(RuntimeError, match=r"not have been used in the graph|does not require grad"):
        torch.autograd.grad(loss, list(problem.model.parameters()), create_graph=True)
    batches = [(b, len(b[1])) for b in problem.batches]
    with Objective(problem.model, problem.loss, batches, device=CPU, dtype=torch.float32).borrowed() as f:
        product = f.product(torch.ones_like(f.flat))
        sizes = [p.numel() for p in f.parameters]
    names = [n for n, p in problem.model.named_parameters() if p.requires_grad]
    parts = dict(zip(names, product.split(sizes), strict=True))
    assert not parts["never.weight"].any()
    assert parts["used.weight"].any()


def test_averaging_batch_means_is_wrong_with_a_ragged_last_batch() -> None:
    problem = NETWORKS["mlp"]()
    batches = [(b, len(b[1])) for b in problem.batches]
    vector = torch.ones(sum(p.numel() for p in problem.model.parameters()))
    own: list[Tensor] = []
    with Objective(problem.model, problem.loss, batches, device=CPU, dtype=torch.float32).borrowed() as f:
        weighted = f.product(vector, lambda _count, product: own.append(product)).double()
    whole = (torch.cat([x for x, _ in problem.batches]), torch.cat([y for _, y in problem.batches]))
    truth = difference_quotient(Problem(model=problem.model, loss=problem.loss, batches=[whole]), vector)
    size = torch.linalg.vector_norm(truth)
    assert torch.linalg.vector_norm(weighted - truth) < 1e-4 * size
    assert torch.linalg.vector_norm(torch.stack(own).mean(0).double() - truth) > 0.01 * size


@pytest.fixture
def process_group(tmp_path: Any) -> Iterator[None]:
    import torch.distributed as dist

    if not dist.is_available():
        pytest.skip("torch was built without distributed")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_distributed_wrappers_are_taken_off(process_group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own forward sends the buffers of rank 0 to every rank: a rank that measures alone would wait for ever."""
    inner = around(lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))
    wrapped = nn.parallel.DistributedDataParallel(inner.model)
    sent: list[int] = []
    monkeypatch.setattr(nn.parallel.DistributedDataParallel, "_sync_buffers", lambda self: sent.append(1))
    problem = Problem(model=wrapped, loss=inner.loss, batches=inner.batches)
    m = samdiag.diagnose(problem, rho=0.05).measurements
    assert m is not None
    assert m.self_check.passed
    assert m.lambda_max == samdiag.diagnose(inner, rho=0.05).measurements.lambda_max
    assert not sent
    monkeypatch.setattr("samdiag.measure.opening.unwrapped", lambda model: model)
    open_only(problem)
    assert sent


# ---------------------------------------------------------------- orders of differentiation


def test_reverse_over_forward_is_wrong_with_layer_norm() -> None:
    """Why no engine differentiates a forward-mode derivative backwards."""
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 5)).double()
    x, y = classification((6,), 5, (9,))[0]
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    direction = {k: torch.randn_like(v) for k, v in parameters.items()}

    def loss(p: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, p, (x.double(),)), y)

    def slope(p: dict[str, Tensor]) -> Tensor:
        return torch.func.jvp(loss, (p,), (direction,))[1]

    backwards = torch.func.grad(slope)(parameters)
    _, forwards = torch.func.jvp(torch.func.grad(loss), (parameters,), (direction,))
    flat = torch.cat([direction[k].reshape(-1) for k in parameters])
    problem = Problem(model=model, loss=cross_entropy, batches=[(x, y)])
    truth = difference_quotient(problem, flat)
    size = torch.linalg.vector_norm(truth)
    assert torch.linalg.vector_norm(torch.cat([forwards[k].reshape(-1) for k in parameters]) - truth) < 1e-6 * size
    assert torch.linalg.vector_norm(torch.cat([backwards[k].reshape(-1) for k in parameters]) - truth) > 0.01 * size
