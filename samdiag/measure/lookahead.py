"""Where the next steps lead: what tells a point that descends from one that only jumps back and forth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.measure.ascent import variant_named

STEPS = 8  # on a captured MNIST network the pace over 2 steps read 26 % or 2 % by the bounce's phase, over 8 it is ±5 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookahead:
    """Losses that the trend of STEPS steps leads to, and whether the first step flips the gradient.

    Attributes:
        loss: after STEPS SAM steps, on the line through the means of the first two and of the last two losses: a
            period-2 bounce shows no progress then.
        loss_sgd: the same with plain gradient steps of the same size.
        cosine: of the gradients before and after the first SAM step; −1 on a period-2 bounce.
    """

    loss: float
    loss_sgd: float
    cosine: float | None


def look_ahead(
    objective: Objective,
    x: Tensor,
    *,
    rho: float,
    variant: str,
    shrink: float,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> Lookahead:
    """STEPS steps of size lr/(1+gamma) with SAM and with plain gradients; the objective is left at `x`.

    lr/(1+gamma) is the step whose period-2 cycles are those of heavy ball with lr (A9). `shrink` scales the
    displacement to what mini-batch SAM's is on average: rho_eff|g|/rho. Costs 3·STEPS gradients.

    Source: theory A9 and the grading of captured points by what they still gain.
    """
    step = lr / (1.0 + momentum)
    gradients: list[Tensor] = []

    def sam(point: Tensor) -> tuple[float, Tensor]:
        objective.move_to(point)
        loss, g = objective.gradient()
        gradients.append(g)
        objective.move_to(point + variant_named(variant)(point, g, rho).displacement * shrink)
        return loss, objective.gradient()[1]

    def sgd(point: Tensor) -> tuple[float, Tensor]:
        objective.move_to(point)
        return objective.gradient()

    def follow(update: Callable[[Tensor], tuple[float, Tensor]]) -> float:
        losses, point = [], x
        for _ in range(STEPS):
            loss, direction = update(point)
            losses.append(loss)
            point = point - step * (direction + weight_decay * point)
        objective.move_to(point)
        losses.append(objective.loss())
        return _trend(losses)

    try:
        loss = follow(sam)
        first, second = gradients[0], gradients[1]
        norms = float(torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second))
        cosine = float(torch.dot(first, second)) / norms if 0 < norms < math.inf else None
        return Lookahead(loss=loss, loss_sgd=follow(sgd), cosine=cosine)
    finally:
        objective.move_to(x)


def _trend(losses: list[float]) -> float:
    """The loss at the end of the line through the mean of the first two and the mean of the last two."""
    change = (losses[-1] + losses[-2] - losses[0] - losses[1]) / 2.0
    steps = len(losses) - 1
    end = losses[0] + change * steps / (steps - 1)
    return end if math.isfinite(end) else math.inf  # the steps diverge
