"""A short run of the real update, in memory: whether the loss goes on falling with noise and momentum in it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_statistics
from samdiag.measure.ascent import Rule
from samdiag.measure.dynamics import Update, Walk
from samdiag.measure.settings import MeasureSettings

SHORT = 24  # full-batch steps: the memory of momentum 0.9 is ten steps, and the first third is for filling it
LONG = 400  # mini-batch steps at most
PASSES = 20  # passes over the analysed samples that a mini-batch trial may cost per update rule
POINTS = 12  # where a mini-batch trial evaluates the loss on all samples: four in each third


class CutShort(Exception):
    """A trial was stopped before its end; its text is why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The trend of the loss between the middle third and the last third of a run.

    Attributes:
        change: of the loss over `steps` steps, by that trend; infinite where the run diverged.
        error: standard error of the change: mini-batch noise moves the loss up and down.
        steps: length of the run.
    """

    change: float
    error: float
    steps: int


def run_trial(
    objective: Objective,
    x: Tensor,
    rule: Rule | None,
    settings: MeasureSettings,
    *,
    batch_size: int | None,
    steps: int | None = None,
    stop: Callable[[], str | None] | None = None,
) -> Trial:
    """v ← gamma·v + (1 − d)(F_b + wd·x), x ← x − eta·v from v = 0, on batches as in training.

    F_b is what the variant makes of the batch's gradients.

    Noise and momentum lift a captured run above the saddle. A few noiseless steps only let that excess relax, which
    looks like progress and is none; the middle and the last third of the real dynamics have the same excess. The
    objective is left at `x`.

    Args:
        objective: at any point; its batches are cut or joined to `batch_size`.
        x: [num_params] the checkpoint.
        rule: SAM's ascent; None for plain gradients.
        settings: lr, momentum (with Nesterov and dampening as in torch.optim.SGD), weight decay, micro-batch, seed.
        batch_size: of training; None: every step sees all samples.
        steps: length of the run; None: SHORT with full batches, else as many as PASSES allow.
        stop: asked before every step; a reason ends the run.

    Raises:
        CutShort: `stop` gave a reason; the run then says nothing, since it is its end that is looked at.

    Source: SAM as Foret et al., algorithm 1, with the momentum of PyTorch's SGD.
    """
    update = Update.configured(settings, rule, batch_size)
    whole = batch_size is None
    if steps is None:
        steps = SHORT if batch_size is None else _num_steps(objective.num_samples, batch_size)
    walk = Walk(objective, x, seed=settings.seed, velocity=torch.zeros_like(x))
    losses: list[tuple[int, float]] = []
    every = 1 if whole else max(steps // POINTS, 1)
    try:
        with batch_statistics(objective.model):
            for step in range(1, steps + 1):
                if stop is not None and (reason := stop()) is not None:
                    raise CutShort(reason)
                loss = walk.step(update)
                if whole:
                    losses.append((step, loss))
                elif step % every == 0:
                    objective.move_to(walk.point)
                    losses.append((step, objective.loss()))
            return _trend(losses, steps, smooth=whole)
    finally:
        objective.move_to(x)


def _num_steps(samples: int, batch_size: int) -> int:
    return max(SHORT, min(LONG, PASSES * samples // batch_size))


def _trend(losses: list[tuple[int, float]], steps: int, *, smooth: bool) -> Trial:
    """The slope between the thirds times the steps, with the standard error that the points' scatter gives it.

    `smooth`: every step's loss is there and nothing is random; the scatter is then that about a straight line in each
    third, so that a steady fall is no noise.
    """
    middle = [v for s, v in losses if steps / 3 < s <= 2 * steps / 3]
    last = [v for s, v in losses if s > 2 * steps / 3]
    end = 3.0 * (statistics.fmean(last) - statistics.fmean(middle))
    if not math.isfinite(end):
        return Trial(change=math.inf, error=0.0, steps=steps)
    try:
        scatter = sum(_variance(third, about_line=smooth) / len(third) for third in (middle, last))
    except OverflowError:  # too large to be squared: it rises, or falls, without end
        return Trial(change=math.inf if end > 0 else end, error=0.0, steps=steps)
    return Trial(change=end, error=3.0 * math.sqrt(scatter), steps=steps)


def _variance(values: list[float], *, about_line: bool) -> float:
    """Variance of evenly spaced values about their mean, or about the straight line through them."""
    if not about_line:
        return statistics.variance(values)
    places = list(range(len(values)))
    slope, intercept = statistics.linear_regression(places, values)
    left = (v - intercept - slope * i for i, v in zip(places, values, strict=True))
    return sum(d * d for d in left) / (len(values) - 2)
