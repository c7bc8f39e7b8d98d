"""Small problems in one piece: the same numbers up to rounding, and not where batches matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from samdiag.curvature.objective import Objective
from samdiag.curvature.products import uniting
from samdiag.curvature.products.batch_loss import BatchLoss
from samdiag.curvature.products.choice import choose_engine

DTYPE = torch.float64


def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def batches(sizes: tuple[int, ...] = (16, 16, 7), width: int = 3) -> list[tuple[Any, int]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for size in sizes:
        x = torch.randn(size, width, generator=generator, dtype=DTYPE)
        found.append(((x, (x[:, 0] > 0).long()), size))
    return found


def network(norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(3, 5), nn.BatchNorm1d(5) if norm else nn.Tanh(), nn.Linear(5, 2)]
    return nn.Sequential(*layers).to(DTYPE)


def objective(model: nn.Module, loss: Callable[..., Tensor] = mean_loss, **more: Any) -> Objective:
    return Objective(model, loss, batches(), device=torch.device("cpu"), dtype=DTYPE, **more)


def test_loss_gradient_and_product_are_those_of_the_batches() -> None:
    v = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=DTYPE)
    with objective(network()).borrowed() as apart:
        expected = apart.loss(), *apart.gradient(), apart.product(v), apart.block(v[None])
    with objective(network()).borrowed() as whole:
        assert uniting.unite(whole)
        found = whole.loss(), *whole.gradient(), whole.product(v), whole.block(v[None])
        assert whole.kept_share == 1.0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-12, atol=1e-12)


def test_who_asks_for_each_batch_sees_each() -> None:
    with objective(network()).borrowed() as whole:
        assert uniting.unite(whole)
        seen: list[int] = []
        whole.gradient(lambda count, _loss, _own: seen.append(count))
        whole.product(torch.ones(whole.num_params, dtype=DTYPE), lambda count, _own: seen.append(count))
        whole.loss(lambda count, _loss: seen.append(count))
        half = whole.gradient(half=1)[0]
        assert seen == [16, 16, 7] * 3
    with objective(network()).borrowed() as apart:
        assert half == pytest.approx(apart.gradient(half=1)[0], rel=1e-12)


def test_the_engine_is_kept_graphs_without_a_trial() -> None:
    with objective(network()).borrowed() as whole:
        assert uniting.unite(whole)
        chosen = choose_engine(whole)
        assert (chosen.name, chosen.joined, chosen.tried) == ("kept", 39, ())
        assert choose_engine(whole, "recomputed").name == "recomputed"
        assert not whole.united  # what is asked for by name runs on the batches


def pairwise(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """No mean over samples: it compares each with the others of its batch."""
    out = model(batch[0])
    return (out @ out.T).square().mean()


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: objective(network(norm=True)), "BatchNorm"),
        (lambda: objective(network(), pairwise), "no mean over samples"),
        (lambda: objective(network(), memory=5_000), "no memory for the graph"),
        (lambda: objective(network(), graph_memory=0), "no graph may be kept"),
        (lambda: Objective(network(), mean_loss, batches((16,)), device=torch.device("cpu"), dtype=DTYPE), "one batch"),
    ],
)
def test_where_batches_matter_they_stay(made: Callable[[], Objective], why: str) -> None:
    with made().borrowed() as apart:
        assert not uniting.unite(apart), why
        assert not apart.united


@pytest.mark.parametrize("limit", ["MOST_DATA", "MOST_GRAPH"])
def test_large_problems_stay_in_batches(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniting, limit, 100)
    with objective(network()).borrowed() as apart:
        assert not uniting.unite(apart)


def test_memory_that_runs_out_leaves_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch)
    with objective(network()).borrowed() as apart:
        assert not uniting.unite(apart)
        assert apart.gradient()[0] > 0


def test_memory_that_runs_out_later_takes_the_piece_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with objective(network()).borrowed() as apart:
        expected = apart.gradient()
    with objective(network()).borrowed() as whole:
        assert uniting.unite(whole)
        limited(monkeypatch)
        loss, gradient = whole.gradient()
        assert not whole.united
        assert whole.split == 0
    assert loss == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(gradient, expected[1])


def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a piece of more than 16 samples does not fit."""
    gradient = BatchLoss.gradient

    def refusing(self: BatchLoss, data: Any) -> Any:
        if len(data[0]) > 16:
            raise torch.OutOfMemoryError("out of memory")
        return gradient(self, data)

    monkeypatch.setattr(BatchLoss, "gradient", refusing)
