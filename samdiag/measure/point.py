"""Loss and gradient at one point, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.measure.statistics import BatchValues


@dataclass(slots=True)
class Point:
    """Loss and gradient at one point, with the per-batch losses.

    Attributes:
        x: [num_params] float64; gradient likewise.
    """

    x: Tensor
    loss: float
    gradient: Tensor
    losses: BatchValues
    squared_norms: list[float] = field(default_factory=list)  # |D^½ g_b|² per batch, in the variant's metric
    plain_squared_norms: list[float] = field(default_factory=list)

    @property
    def norm(self) -> float:
        return float(torch.linalg.vector_norm(self.gradient))


def evaluate(objective: Objective, x: Tensor, metric: Tensor | None = None) -> Point:
    """Loss and gradient at `x` [num_params]; the objective is left there."""
    objective.move_to(x)
    losses = BatchValues()
    squared: list[float] = []
    plain: list[float] = []

    def note(count: int, loss: float, own: Tensor) -> None:
        losses.add(count, loss)
        own = own.double()
        plain.append(float(torch.dot(own, own)))
        squared.append(plain[-1] if metric is None else float(torch.dot(own, metric * own)))

    loss, gradient = objective.gradient(note)
    return Point(x=x, loss=loss, gradient=gradient, losses=losses, squared_norms=squared, plain_squared_norms=plain)
