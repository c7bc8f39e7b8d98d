"""SAM as the papers define it, one update at a time, written apart from what samdiag measures with.

It differs from `samdiag.gallery.training` in that a run can be continued: with its momentum buffer, and with settings
that change on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One update's settings: rho 0 is plain SGD; batch_size None is the full batch; momentum as in torch.optim.SGD."""

    lr: float
    rho: float
    momentum: float = 0.0
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """Short, and safe in a file name."""
        parts = [f"lr{self.lr:g}", f"rho{self.rho:g}"]
        parts += [f"m{self.momentum:g}"] if self.momentum else []
        parts += [f"b{self.batch_size}"] if self.batch_size else []
        return "-".join(parts)


class Trainer:
    """A model on its way: v ← gamma·v + ∇f(x + rho·g/|g|), x ← x − eta·v; without momentum no v is kept.

    Source: Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, algorithm 1.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TensorDataset,
        criterion: Criterion,
        *,
        seed: int = 0,
        velocity: list[Tensor] | None = None,
        replacement: bool = False,
    ) -> None:
        """Trains `model` in place from `velocity` (zero where there is none); `seed` orders the mini-batches.

        With `replacement` every batch is drawn by itself, so that their noise is independent.
        """
        self.model = model.train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.velocity = [v.clone() for v in velocity or [torch.zeros_like(p) for p in self.parameters]]
        self._inputs, self._targets = data.tensors
        self._criterion, self._seed, self._replacement = criterion, seed, replacement
        self._streams: dict[int, Iterator[Tensor]] = {}

    def step(self, setting: Setting) -> float:
        """Makes one update; returns the loss of its batch at the point before it. NaN once the run has blown up."""
        inputs, targets = self._batch(setting.batch_size)
        loss, gradient = self._gradient(inputs, targets)
        if setting.rho > 0:
            norm = norm_of(gradient)
            gradient = self._shifted(inputs, targets, gradient, setting.rho / norm if norm > 0 else 0.0)
        with torch.no_grad():
            torch._foreach_mul_(self.velocity, setting.momentum)
            torch._foreach_add_(self.velocity, gradient)
            torch._foreach_add_(self.parameters, self.velocity, alpha=-setting.lr)
            if setting.momentum == 0:  # torch.optim.SGD keeps no buffer then, for a later momentum to start from
                torch._foreach_zero_(self.velocity)
        return loss

    def look(self) -> tuple[float, float]:
        """(loss, |g|) over all data at the present point; the buffers of BatchNorm come back as they were."""
        kept = [buffer.clone() for buffer in self.model.buffers()]
        loss, gradient = self._gradient(self._inputs, self._targets)
        for buffer, old in zip(self.model.buffers(), kept, strict=True):
            buffer.copy_(old)
        return loss, norm_of(gradient)

    def point(self) -> Tensor:
        """The parameters as one vector, a copy."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    def _gradient(self, inputs: Tensor, targets: Tensor) -> tuple[float, list[Tensor]]:
        loss = self._criterion(self.model(inputs), targets)
        return float(loss.detach()), list(torch.autograd.grad(loss, self.parameters))

    def _shifted(self, inputs: Tensor, targets: Tensor, gradient: list[Tensor], scale: float) -> list[Tensor]:
        """∇f(x + scale·g); parameters and buffers come back to the bit."""
        moved: list[Tensor] = [*self.parameters, *self.model.buffers()]
        kept = [tensor.detach().clone() for tensor in moved]
        with torch.no_grad():
            torch._foreach_add_(self.parameters, gradient, alpha=scale)
        shifted = self._gradient(inputs, targets)[1]
        with torch.no_grad():
            for tensor, old in zip(moved, kept, strict=True):
                tensor.copy_(old)
        return shifted

    def _batch(self, size: int | None) -> tuple[Tensor, Tensor]:
        if size is None or size >= len(self._inputs):
            return self._inputs, self._targets
        if size not in self._streams:
            self._streams[size] = rows_of(len(self._inputs), size, self._seed, replacement=self._replacement)
        rows = next(self._streams[size])
        return self._inputs[rows], self._targets[rows]


def rows_of(count: int, size: int, seed: int, *, replacement: bool) -> Iterator[Tensor]:
    """The samples of one mini-batch after the other, without end; a ragged last batch of a pass is dropped."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        if replacement:
            yield torch.randint(count, (size,), generator=generator)
            continue
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def norm_of(gradient: list[Tensor]) -> float:
    """|g| over all parts, summed in float64."""
    return math.sqrt(sum(float(part.double().square().sum()) for part in gradient))
