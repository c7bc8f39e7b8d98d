"""Where the next steps lead: what tells a point that descends from one that only jumps back and forth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_norms
from samdiag.measure.ascent import variant_named
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.trial import run_trial

STEPS = 8  # on a captured MNIST network the pace over 2 steps read 26 % or 2 % by the bounce's phase, over 8 it is ±5 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookahead:
    """Losses that the trend of the next steps leads to, and whether the first step flips the gradient.

    Attributes:
        loss: after that many SAM steps, on the line through the means of the first two and of the last two losses (a
            period-2 bounce shows no progress then), or through two thirds of a trial of the real update.
        loss_sgd: the same with plain gradient steps.
        cosine: of the gradients before and after the first SAM step; −1 on a period-2 bounce.
        steps: how many steps ahead.
        error, error_sgd: standard errors of the two losses; 0 where nothing is random.
    """

    loss: float
    loss_sgd: float
    cosine: float | None
    steps: int
    error: float = 0.0
    error_sgd: float = 0.0


def look_ahead(
    objective: Objective, x: Tensor, loss: float, settings: MeasureSettings, batch_size: int | None, shrink: float
) -> Lookahead:
    """Where SAM's and plain next steps lead; the objective is left at `x`.

    Full batches without momentum: STEPS steps, 3·STEPS gradients. With momentum or mini-batches a few noiseless steps
    would only let the excess of noise and momentum relax, and BatchNorm trains on the batch's own statistics: there the
    real update runs for a while (`measure.trial`).

    Args:
        objective: the objective.
        x: [num_params] the checkpoint.
        loss: at `x`.
        settings: the training settings; lr must be known.
        batch_size: of training; None: full batch.
        shrink: rho_eff|g|/rho, mini-batch SAM's mean displacement over that of the full gradient.

    Source: theory A9 and the grading of captured points by what they still gain.
    """
    assert settings.lr is not None
    cosine = _flip(objective, x, settings, settings.lr, shrink)
    if settings.momentum == 0 and batch_size is None and not batch_norms(objective.model):
        sam = _follow(objective, x, settings, settings.lr, settings.rho)
        return Lookahead(
            loss=sam, loss_sgd=_follow(objective, x, settings, settings.lr, None), cosine=cosine, steps=STEPS
        )
    trials = [
        run_trial(
            objective,
            x,
            rho=rho,
            variant=settings.variant,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            batch_size=batch_size,
            seed=settings.seed,
        )
        for rho in (settings.rho, None)
    ]
    return Lookahead(
        loss=loss + trials[0].change,
        loss_sgd=loss + trials[1].change,
        error=trials[0].error,
        error_sgd=trials[1].error,
        cosine=cosine,
        steps=trials[0].steps,
    )


def _flip(objective: Objective, x: Tensor, settings: MeasureSettings, lr: float, shrink: float) -> float | None:
    """Cosine of the gradients before and after one SAM step of lr/(1+gamma), whose 2-cycles are those of heavy ball."""
    objective.move_to(x)
    _, first = objective.gradient()
    objective.move_to(x + variant_named(settings.variant)(x, first, settings.rho).displacement * shrink)
    shifted = objective.gradient()[1] + settings.weight_decay * x
    objective.move_to(x - lr / (1.0 + settings.momentum) * shifted)
    _, second = objective.gradient()
    objective.move_to(x)
    norms = float(torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second))
    return float(torch.dot(first, second)) / norms if 0 < norms < math.inf else None


def _follow(objective: Objective, x: Tensor, settings: MeasureSettings, lr: float, rho: float | None) -> float:
    """The trend's end after STEPS full-batch steps without momentum; rho None: plain gradient steps."""
    losses, point = [], x
    try:
        for _ in range(STEPS):
            objective.move_to(point)
            loss, direction = objective.gradient()
            losses.append(loss)
            if rho is not None:
                objective.move_to(point + variant_named(settings.variant)(point, direction, rho).displacement)
                direction = objective.gradient()[1]
            point = point - lr * (direction + settings.weight_decay * point)
        objective.move_to(point)
        losses.append(objective.loss())
        return _trend(losses)
    finally:
        objective.move_to(x)


def _trend(losses: list[float]) -> float:
    """The loss at the end of the line through the mean of the first two and the mean of the last two."""
    change = (losses[-1] + losses[-2] - losses[0] - losses[1]) / 2.0
    steps = len(losses) - 1
    end = losses[0] + change * steps / (steps - 1)
    return end if math.isfinite(end) else math.inf  # the steps diverge
