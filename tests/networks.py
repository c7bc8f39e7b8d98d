"""Small networks whose Hessian is awkward in one way each, as (model, loss, batches) on fixed random data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.types import Problem

RAGGED = (7, 7, 7, 3)  # sample counts: the last batch is smaller


def classification(
    shape: tuple[int, ...], classes: int, counts: tuple[int, ...] = RAGGED
) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, *shape, generator=generator), torch.randint(0, classes, (n,), generator=generator))
        for n in counts
    ]


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build()


def mlp() -> Problem:
    model = _seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)))
    return Problem(model=model, loss=cross_entropy, batches=classification((6,), 5))


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.mix = nn.Linear(6, 6)
        self.out = nn.Linear(6, 9, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mix(self.embed(tokens))).mean(dim=1))


def tied() -> Problem:
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randint(0, 9, (n, 4), generator=generator), torch.randint(0, 9, (n,), generator=generator))
        for n in RAGGED
    ]
    return Problem(model=_seeded(_Tied), loss=cross_entropy, batches=batches)


class _Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(6, 5)
        self.hidden = nn.Linear(5, 5)
        self.never = nn.Linear(4, 4)
        self.frozen = nn.Linear(5, 5)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.hidden(torch.tanh(self.used(x))))


def unused() -> Problem:
    return Problem(model=_seeded(_Unused), loss=cross_entropy, batches=classification((6,), 5))


def batch_norm() -> Problem:
    def build() -> nn.Module:
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 5)
        )
        model.train()
        for _ in range(3):
            model(torch.randn(16, 1, 6, 6))  # running statistics that are not the initial ones
        return model

    return Problem(model=_seeded(build), loss=cross_entropy, batches=classification((1, 6, 6), 5))


def layer_norm() -> Problem:
    model = _seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 5)))
    return Problem(model=model, loss=cross_entropy, batches=classification((6,), 5))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x).mean(dim=1))


def attention() -> Problem:
    return Problem(model=_seeded(_Attention), loss=cross_entropy, batches=classification((4, 8), 5))


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def lstm() -> Problem:
    return Problem(model=_seeded(_Recurrent), loss=cross_entropy, batches=classification((4, 5), 5))


class _Huge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def mlp_1870() -> Problem:
    return Problem(model=_seeded(_Huge), loss=cross_entropy, batches=classification((20,), 10, (40, 40, 17)))


NETWORKS: dict[str, Callable[[], Problem]] = {
    f.__name__: f for f in (mlp, tied, unused, batch_norm, layer_norm, attention, lstm, mlp_1870)
}


@contextmanager
def plain_kernels() -> Iterator[None]:
    """oneDNN off: its LSTM has no double backward."""
    backend: Any = torch.backends.mkldnn
    kept, backend.enabled = backend.enabled, False
    try:
        yield
    finally:
        backend.enabled = kept


def dense_hessian(problem: Problem) -> Tensor:
    """The float64 Hessian [num_params, num_params] of the sample-weighted mean loss, by double backward row by row."""
    import copy

    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = copy.deepcopy(problem.model).double().eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in parameters]
    hessian = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64)
    total = 0
    with sdpa_kernel(SDPBackend.MATH), plain_kernels():
        for x, y in problem.batches:
            inputs = x.double() if x.is_floating_point() else x
            grads = torch.autograd.grad(
                problem.loss(model, (inputs, y)), parameters, create_graph=True, allow_unused=True
            )
            live = [(i, g) for i, g in enumerate(grads) if g is not None and g.requires_grad]
            rows = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64)
            for i, g in live:
                for k in range(g.numel()):
                    unit = torch.zeros(g.numel(), dtype=torch.float64)
                    unit[k] = 1.0
                    row = torch.autograd.grad(
                        g, parameters, grad_outputs=unit.view_as(g), retain_graph=True, allow_unused=True
                    )
                    rows[sum(sizes[:i]) + k] = torch.cat(
                        [
                            (torch.zeros(n, dtype=torch.float64) if r is None else r.reshape(-1))
                            for r, n in zip(row, sizes, strict=True)
                        ]
                    )
            hessian += len(y) * rows
            total += len(y)
    return hessian / total
