"""Loss and gradient at one point, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.memory import affordable_vectors
from samdiag.curvature.objective import Objective
from samdiag.measure.statistics import BatchValues

KEPT_SHARE = 4  # kept gradients take at most this part of what a Krylov basis may


@dataclass(slots=True)
class Point:
    """Loss and gradient at one point, with what each batch says.

    Attributes:
        x: [num_params] float64; gradient likewise.
        own: [num_batches, num_params] the batches' gradients, while they fit in memory; None where they do not.
    """

    x: Tensor
    loss: float
    gradient: Tensor
    losses: BatchValues
    squared_norms: list[float]
    own: Tensor | None

    @property
    def norm(self) -> float:
        return float(torch.linalg.vector_norm(self.gradient))


def evaluate(objective: Objective, x: Tensor) -> Point:
    """Loss and gradient at `x` [num_params]; the objective is left there."""
    objective.move_to(x)
    losses = BatchValues()
    squared: list[float] = []
    rows: list[Tensor] = []
    affordable = affordable_vectors(objective.device, objective.num_params, objective.dtype) // KEPT_SHARE
    keep = len(objective.counts) <= affordable

    def note(count: int, loss: float, own: Tensor) -> None:
        losses.add(count, loss)
        squared.append(float(torch.linalg.vector_norm(own.double())) ** 2)
        if keep:
            rows.append(own)

    loss, gradient = objective.gradient(note)
    return Point(
        x=x,
        loss=loss,
        gradient=gradient,
        losses=losses,
        squared_norms=squared,
        own=torch.stack(rows) if rows else None,
    )


def project(objective: Objective, point: Point, directions: Tensor) -> list[BatchValues]:
    """d·g_b for each row d of `directions` [k, num_params] and each batch; one more pass where gradients are not kept.

    Summed in float64. The objective is left at `point` when it has to be moved.
    """
    columns = [BatchValues() for _ in range(len(directions))]
    wide = directions.double()

    def note(count: int, _: float, own: Tensor) -> None:
        for column, share in zip(columns, (wide @ own.double()).tolist(), strict=True):
            column.add(count, share)

    if point.own is not None:
        for count, own in zip(point.losses.counts, point.own, strict=True):
            note(count, 0.0, own)
    else:
        objective.move_to(point.x)
        objective.gradient(note)
    return columns


def squared_norms_in(objective: Objective, point: Point, metric: Tensor | None) -> list[float]:
    """|D^½ g_b|² per batch for the diagonal D = `metric` [num_params], None for the identity."""
    if metric is None:
        return point.squared_norms
    found: list[float] = []

    def note(_count: int, _: float, own: Tensor) -> None:
        wide = own.double()
        found.append(float(torch.dot(wide, metric * wide)))

    if point.own is not None:
        for own in point.own:
            note(0, 0.0, own)
    else:
        objective.move_to(point.x)
        objective.gradient(note)
    return found


def gradient_of_half(objective: Objective, point: Point, half: int) -> tuple[float, Tensor]:
    """Mean loss and gradient [num_params] over one of two halves of the batches (see `Objective.gradient`)."""
    if point.own is None or len(point.own) != len(objective.halves):
        objective.move_to(point.x)
        return objective.gradient(half=half)
    chosen = [i for i, which in enumerate(objective.halves) if which == half]
    counts = [point.losses.counts[i] for i in chosen]
    loss = sum(n * point.losses.values[i] for n, i in zip(counts, chosen, strict=True)) / sum(counts)
    weights = torch.tensor(counts, dtype=torch.float64, device=point.own.device) / sum(counts)
    return loss, weights @ point.own[chosen].double()
