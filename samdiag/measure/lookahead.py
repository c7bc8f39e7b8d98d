"""Where the next two steps lead: what tells a point that descends from one that only jumps back and forth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.measure.ascent import variant_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookahead:
    """Losses after two steps, and whether the first one flips the gradient.

    Attributes:
        loss: after two SAM steps; over two, because a period-2 bounce returns and shows no progress.
        loss_sgd: after two plain gradient steps of the same size.
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
    """Two steps of size lr/(1+gamma) with SAM and with plain gradients; the objective is left at `x`.

    lr/(1+gamma) is the step whose period-2 cycles are those of heavy ball with lr (A9). `shrink` scales the
    displacement to what mini-batch SAM's is on average: rho_eff|g|/rho.

    Source: theory A9 and the grading of captured points by what they still gain.
    """
    step = lr / (1.0 + momentum)

    def sam_gradient(point: Tensor) -> tuple[Tensor, Tensor]:
        objective.move_to(point)
        _, g = objective.gradient()
        e = variant_named(variant)(point, g, rho).displacement * shrink
        objective.move_to(point + e)
        return g, objective.gradient()[1]

    def decayed(point: Tensor, gradient: Tensor) -> Tensor:
        return point - step * (gradient + weight_decay * point)

    try:
        g0, shifted = sam_gradient(x)
        first = decayed(x, shifted)
        g1, shifted = sam_gradient(first)
        objective.move_to(decayed(first, shifted))
        loss = objective.loss()
        plain = decayed(x, g0)
        objective.move_to(plain)
        plain = decayed(plain, objective.gradient()[1])
        objective.move_to(plain)
        loss_sgd = objective.loss()
        norms = float(torch.linalg.vector_norm(g0) * torch.linalg.vector_norm(g1))
        cosine = float(torch.dot(g0, g1)) / norms if norms > 0 else None
        return Lookahead(loss=loss, loss_sgd=loss_sgd, cosine=cosine)
    finally:
        objective.move_to(x)
