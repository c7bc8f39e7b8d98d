"""Small batches joined for products: exact where the loss is a mean over samples, and left alone where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.curvature.objective import Objective
from samdiag.curvature.products import joining
from samdiag.curvature.products.batch_loss import Piece
from samdiag.curvature.products.joining import join_batches
from samdiag.curvature.products.kept import Kept

CPU = torch.device("cpu")
COUNTS = (4,) * 15 + (3,)


def mean(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def in_batch(model: nn.Module, batch: Any) -> Tensor:
    """Contrastive: every sample is compared with the others of its batch."""
    outputs = model(batch[0])
    return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


def over_tokens(model: nn.Module, batch: Any) -> Tensor:
    """A mean over what is not padding: another weight for every batch."""
    return F.cross_entropy(model(batch[0]), batch[1], ignore_index=0)


def data(counts: tuple[int, ...] = COUNTS) -> list[tuple[Any, int]]:
    generator = torch.Generator().manual_seed(0)
    return [
        ((torch.randn(n, 6, generator=generator), torch.randint(0, 5, (n,), generator=generator)), n) for n in counts
    ]


@pytest.fixture(autouse=True)
def any_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "GAIN", float("inf"))  # what is tested is exactness, not the clock


def objective(loss: Any, batches: list[tuple[Any, int]] | None = None) -> Objective:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    return Objective(model, loss, batches or data(), device=CPU, dtype=torch.float32)


def joined(f: Objective) -> list[Piece] | None:
    vector = torch.randn(f.num_params, generator=torch.Generator().manual_seed(1))
    pieces = [Piece(d, c) for d, c in zip(f.batches, f.counts, strict=True)]
    return join_batches(pieces, f.function, Kept(f.function), vector=vector, fits=lambda _: True)


def test_a_mean_over_samples_is_joined_and_its_products_stay_the_same() -> None:
    with objective(mean).borrowed() as f:
        v = torch.randn(f.num_params, generator=torch.Generator().manual_seed(2))
        apart = f.product(v)
        pieces = joined(f)
        assert pieces is not None
        assert [p.count for p in pieces] == [16, 16, 16, 15]
        f.join(pieces)
        assert torch.allclose(f.product(v), apart, rtol=1e-4, atol=1e-7)
        assert f.kept_share == 1.0
        assert torch.allclose(f.block(v.expand(5, -1)), apart.expand(5, -1), rtol=1e-4, atol=1e-7)


def test_every_batch_is_still_shown_on_its_own() -> None:
    with objective(mean).borrowed() as f:
        v = torch.randn(f.num_params, generator=torch.Generator().manual_seed(2))
        truth: list[Tensor] = []
        f.product(v, lambda _, own: truth.append(own.clone()))
        f.join(joined(f))
        f.product(v)
        seen: list[tuple[int, Tensor]] = []
        f.product(v, lambda count, own: seen.append((count, own.clone())))
        assert [count for count, _ in seen] == list(COUNTS)
        assert all(torch.equal(own, t) for (_, own), t in zip(seen, truth, strict=True))


@pytest.mark.parametrize("loss", [in_batch, over_tokens])
def test_a_loss_that_is_no_mean_over_samples_is_not_joined(loss: Any) -> None:
    with objective(loss).borrowed() as f:
        assert joined(f) is None


def test_a_late_batch_that_differs_is_noticed() -> None:
    """The first batches are all alike; the gradients of all joined ones are compared."""
    batches = data()
    inputs, labels = batches[-1][0]
    batches[-1] = ((inputs, torch.zeros_like(labels)), batches[-1][1])
    batches[:-1] = [((x, y.clamp_min(1)), n) for (x, y), n in batches[:-1]]
    inputs, labels = batches[-2][0]
    batches[-2] = ((inputs, torch.cat([labels[:3], torch.zeros(1, dtype=torch.long)])), batches[-2][1])

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum", ignore_index=0) / (batch[1] > 0).sum().clamp(
            min=1
        )

    with objective(loss, batches).borrowed() as f:
        assert joined(f) is None


def test_batches_of_different_widths_are_not_joined() -> None:
    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(1, 5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.out(x.mean(dim=1, keepdim=True)))

    batches = [((torch.randn(4, 3 + i % 2), torch.randint(0, 5, (4,))), 4) for i in range(16)]
    with Objective(Widths(), mean, batches, device=CPU, dtype=torch.float32).borrowed() as f:
        assert joined(f) is None


def test_joined_batches_that_do_not_fit_in_memory_are_taken_apart() -> None:
    limit = [100]

    def tight(model: nn.Module, batch: Any) -> Tensor:
        if len(batch[1]) > limit[0]:
            raise torch.OutOfMemoryError("pretended")
        return mean(model, batch)

    with objective(tight).borrowed() as f:
        v = torch.randn(f.num_params, generator=torch.Generator().manual_seed(2))
        truth = f.product(v)
        f.join(joined(f))
        limit[0] = 8
        assert torch.allclose(f.product(v), truth, rtol=1e-4, atol=1e-7)
        assert torch.allclose(f.block(v.expand(5, -1)), truth.expand(5, -1), rtol=1e-4, atol=1e-7)
        assert f.counts == list(COUNTS)


def test_few_samples_are_left_as_they_are() -> None:
    """Four batches: a trial on all of them would cost more than it saves."""
    with objective(mean, data((4, 4, 4, 4))).borrowed() as f:
        assert joined(f) is None
