"""Where the next steps lead: what tells a point that descends from one that only jumps back and forth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_norms
from samdiag.measure.ascent import Rule
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.trial import run_trial
from samdiag.theory.edge import stability_edge

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Where a number of steps leads: the loss at the end of its trend, with its standard error."""

    loss: float
    error: float
    count: int


def look_ahead(
    objective: Objective,
    x: Tensor,
    loss: float,
    rule: Rule,
    settings: MeasureSettings,
    *,
    batch_size: int | None,
    shrink: float,
    plain: Steps | None = None,
) -> Lookahead:
    """Where SAM's and plain next steps lead; the objective is left at `x`.

    Args:
        objective: the objective.
        x: [num_params] the checkpoint.
        loss: at `x`.
        rule: SAM's ascent.
        settings: the training settings; lr must be known.
        batch_size: of training; None: full batch.
        shrink: rho_eff|g|/rho, mini-batch SAM's mean displacement over that of the full gradient.
        plain: where plain steps lead, when that is known already.

    Source: theory A9 and the grading of captured points by what they still gain.
    """
    cosine = _flip(objective, x, rule, settings, shrink)
    sam = follow(objective, x, loss, rule, settings, batch_size=batch_size)
    plain = plain or follow(objective, x, loss, None, settings, batch_size=batch_size)
    return Lookahead(
        loss=sam.loss, loss_sgd=plain.loss, error=sam.error, error_sgd=plain.error, cosine=cosine, steps=sam.count
    )


def follow(
    objective: Objective,
    x: Tensor,
    loss: float,
    rule: Rule | None,
    settings: MeasureSettings,
    *,
    batch_size: int | None,
) -> Steps:
    """Where the next steps lead; `rule` None: plain gradient steps. The objective is left at `x`.

    Full batches without momentum: STEPS steps. With momentum, mini-batches or micro-batches a few noiseless steps would
    only let the excess of noise and momentum relax, and BatchNorm trains on the batch's own statistics: there the real
    update runs for a while (`measure.trial`).
    """
    noiseless = settings.momentum == 0 and batch_size is None and settings.micro_batch is None
    if noiseless and not batch_norms(objective.model):
        return Steps(loss=_follow(objective, x, rule, settings), error=0.0, count=STEPS)
    trial = run_trial(objective, x, rule, settings, batch_size=batch_size)
    return Steps(loss=loss + trial.change, error=trial.error, count=trial.steps)


def _flip(objective: Objective, x: Tensor, rule: Rule, settings: MeasureSettings, shrink: float) -> float | None:
    """Cosine of the gradients before and after one SAM step without momentum that has the 2-cycles of the real step:
    its length is 2·eta over the stability edge.
    """
    assert settings.step_size is not None
    objective.move_to(x)
    _, first = objective.gradient()
    ascent = rule.at(x, first)
    objective.move_to(x + ascent.displacement * shrink)
    shifted = ascent.mix.direction(first, objective.gradient()[1]) + settings.update_decay * x
    edge = stability_edge(settings.momentum, nesterov=settings.nesterov)
    objective.move_to(x - 2.0 * settings.step_size / edge * shifted)
    _, second = objective.gradient()
    objective.move_to(x)
    norms = float(torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second))
    return float(torch.dot(first, second)) / norms if 0 < norms < math.inf else None


def _follow(objective: Objective, x: Tensor, rule: Rule | None, settings: MeasureSettings) -> float:
    """The trend's end after STEPS full-batch steps without momentum; rule None: plain gradient steps."""
    assert settings.step_size is not None
    losses, point = [], x
    try:
        for _ in range(STEPS):
            objective.move_to(point)
            loss, direction = objective.gradient()
            losses.append(loss)
            if rule is not None:
                ascent = rule.at(point, direction)
                objective.move_to(point + ascent.displacement)
                direction = ascent.mix.direction(direction, objective.gradient()[1])
            point = point - settings.step_size * (direction + settings.update_decay * point)
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
