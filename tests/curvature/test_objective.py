"""The objective on fixed batches: kept and recomputed graphs, memory that runs out, losses that are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.curvature.batches import count_samples, halve, same
from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide, UsageError
from samdiag.types import Problem
from tests.networks import NETWORKS, RAGGED, dense_hessian

CPU = torch.device("cpu")


def objective(problem: Problem, loss: Any = None, **changes: Any) -> Objective:
    batches = [(b, count_samples(b)) for b in problem.batches]
    return Objective(problem.model, loss or problem.loss, batches, device=CPU, dtype=torch.float32, **changes)


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_and_recomputed_products_are_the_dense_product(name: str) -> None:
    problem = NETWORKS[name]()
    hessian = dense_hessian(problem)
    vector = torch.randn(len(hessian), generator=torch.Generator().manual_seed(0))
    truth = hessian @ vector.double()
    for memory in (0, 1, None):
        with objective(problem, graph_memory=memory).borrowed() as f:
            first, second = f.product(vector), f.product(vector)
        assert torch.linalg.vector_norm(first.double() - truth) < 1e-4 * torch.linalg.vector_norm(truth)
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-7)


def test_moving_drops_the_graphs_of_the_old_point() -> None:
    """A kept graph holds views of the parameters: used after a move it would be silently wrong."""
    problem = NETWORKS["mlp"]()
    with objective(problem).borrowed() as f:
        x = f.flat.clone()
        v = torch.ones_like(x)
        here = f.product(v)
        f.move_to(x + 0.5)
        there = f.product(v)
        f.move_to(x)
        again = f.product(v)
    assert torch.equal(here, again)
    assert not torch.allclose(here, there, rtol=1e-2)


def hungry(limit: int, seen: list[int]) -> Any:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        seen.append(len(batch[1]))
        if len(batch[1]) > limit:
            raise torch.OutOfMemoryError("pretended")
        return F.cross_entropy(model(batch[0]), batch[1])

    return loss


def test_out_of_memory_halves_the_batch_and_the_answer_is_unchanged() -> None:
    problem = NETWORKS["mlp"]()
    with objective(problem).borrowed() as f:
        loss, gradient = f.gradient()
        product = f.product(gradient.float())
    seen: list[int] = []
    with objective(problem, hungry(2, seen)).borrowed() as f:
        small_loss, small_gradient = f.gradient()
        small_product = f.product(gradient.float())
        assert f.split > 0
        assert max(f.counts) <= 2
        assert sum(f.counts) == sum(RAGGED)
    assert small_loss == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(small_gradient, gradient, atol=1e-7)
    assert torch.allclose(small_product, product, atol=1e-6)


def test_one_sample_that_does_not_fit_is_reported() -> None:
    with (
        objective(NETWORKS["mlp"](), hungry(0, [])).borrowed() as f,
        pytest.raises(CannotDecide, match="out of memory on a batch of 1 sample"),
    ):
        f.gradient()


def test_a_cpu_allocator_failure_counts_as_out_of_memory() -> None:
    from samdiag.user_errors import is_out_of_memory

    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"), "not a scalar: it has shape"),
        (lambda m, b: 1.0, "returned float, not a tensor"),
        (lambda m, b: torch.tensor(1.0), "does not depend on the model's parameters"),
        (lambda m, b: m(b[0]).detach().sum(), "does not depend on the model's parameters"),
        (lambda m, b: torch.ones(1, requires_grad=True).sum(), "does not depend on the model's trainable parameters"),
    ],
)
def test_bad_losses_are_named(loss: Any, message: str) -> None:
    with objective(NETWORKS["mlp"](), loss).borrowed() as f, pytest.raises(UsageError, match=message):
        f.gradient()


def test_a_loss_that_is_linear_in_the_parameters_has_no_curvature() -> None:
    with objective(NETWORKS["mlp"](), lambda m, b: sum(p.sum() for p in m.parameters())).borrowed() as f:
        assert float(f.product(torch.ones_like(f.flat)).abs().max()) == 0.0


def test_halving_cuts_every_tensor_of_the_batch_and_leaves_the_rest() -> None:
    batch = {"x": torch.arange(10).view(5, 2), "y": torch.arange(5), "scale": torch.tensor(3.0), "name": "five"}
    halves = halve(batch, 5)
    assert halves is not None
    assert [len(h["y"]) for h in halves] == [2, 3]
    assert torch.equal(torch.cat([h["x"] for h in halves]), batch["x"])
    assert halves[0]["name"] == "five"
    assert halve((torch.tensor(1.0),), 1) is None


def test_equal_batches_are_equal_and_others_are_not() -> None:
    a = (torch.tensor([1.0, float("nan")]), torch.tensor([1]))
    assert same(a, (a[0].clone(), a[1].clone()))
    assert not same(a, (a[0] + 1, a[1]))
    assert not same(a, (a[0],))


def test_memory_that_kept_graphs_fill_is_given_back_before_batches_are_halved() -> None:
    problem = NETWORKS["mlp"]()
    calls = 0

    def tight(model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if sum(b.graph is not None for b in f._pieces.batches) > 2:
            raise torch.OutOfMemoryError("pretended: two graphs fill it")
        return F.cross_entropy(model(batch[0]), batch[1])

    f = objective(problem, tight)
    with f.borrowed():
        f.product(torch.ones_like(f.flat))
        assert f.split == 0
        assert f.counts == list(RAGGED)


def test_sparse_gradients_are_made_dense() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(8, 5))
    tokens = torch.randint(0, 9, (6, 2))
    f = Objective(
        model,
        lambda m, b: F.cross_entropy(m(b), torch.zeros(6, dtype=torch.long)),
        [(tokens, 6)],
        device=CPU,
        dtype=torch.float32,
    )
    with f.borrowed():
        assert float(f.gradient()[1].abs().sum()) > 0


def test_a_container_that_cannot_be_looked_into_is_refused() -> None:
    from collections import UserDict

    with pytest.raises(UsageError, match="UserDict"):
        count_samples(UserDict({"x": torch.zeros(16, 2)}))
    assert count_samples({"scale": torch.tensor(1.0), "x": torch.zeros(16, 2)}) == 16
    assert count_samples(0) == 1


def test_halves_stay_disjoint_after_a_split() -> None:
    problem = NETWORKS["mlp"]()
    seen: list[int] = []
    with objective(problem, hungry(3, seen)).borrowed() as f:
        f.gradient()
        first: list[int] = []
        second: list[int] = []
        f.gradient(lambda count, *_: first.append(count), half=0)
        f.gradient(lambda count, *_: second.append(count), half=1)
    assert sum(first) == RAGGED[0] + RAGGED[2]
    assert sum(second) == RAGGED[1] + RAGGED[3]
