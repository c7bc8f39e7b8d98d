"""A short run of the real update, in memory: whether the loss goes on falling with noise and momentum in it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.batches import join, regroup
from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_norms, batch_statistics
from samdiag.measure.ascent import Rule
from samdiag.measure.settings import MeasureSettings

SHORT = 24  # full-batch steps: the memory of momentum 0.9 is ten steps, and the first third is for filling it
LONG = 400  # mini-batch steps at most
PASSES = 20  # passes over the analysed samples that a mini-batch trial may cost per update rule
POINTS = 12  # where a mini-batch trial evaluates the loss on all samples: four in each third


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
    objective: Objective, x: Tensor, rule: Rule | None, settings: MeasureSettings, *, batch_size: int | None
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

    Source: SAM as Foret et al., algorithm 1, with the momentum of PyTorch's SGD.
    """
    assert settings.lr is not None
    whole = batch_size is None
    steps = SHORT if batch_size is None else _num_steps(objective.num_samples, batch_size)
    stream = _batches(objective, batch_size, settings.seed)
    point, velocity = x.clone(), torch.zeros_like(x)
    losses: list[tuple[int, float]] = []
    every = 1 if whole else max(steps // POINTS, 1)
    try:
        with batch_statistics(objective.model):
            for step in range(1, steps + 1):
                batch = next(stream)
                loss, direction = _direction(objective, point, batch, rule, settings.micro_batch)
                if whole:
                    losses.append((step, loss))
                direction = direction + settings.update_decay * point
                velocity = settings.momentum * velocity + (1.0 - settings.dampening) * direction
                point = point - settings.lr * (
                    direction + settings.momentum * velocity if settings.nesterov else velocity
                )
                if not whole and step % every == 0:
                    objective.move_to(point)
                    losses.append((step, objective.loss()))
            return _trend(losses, steps)
    finally:
        objective.move_to(x)


def _num_steps(samples: int, batch_size: int) -> int:
    return max(SHORT, min(LONG, PASSES * samples // batch_size))


def _trend(losses: list[tuple[int, float]], steps: int) -> Trial:
    """The slope between the thirds times the steps, with the standard error that the points' scatter gives it."""
    middle = [v for s, v in losses if steps / 3 < s <= 2 * steps / 3]
    last = [v for s, v in losses if s > 2 * steps / 3]
    end = 3.0 * (statistics.fmean(last) - statistics.fmean(middle))
    if not math.isfinite(end):
        return Trial(change=math.inf, error=0.0, steps=steps)
    scatter = statistics.variance(last) / len(last) + statistics.variance(middle) / len(middle)
    return Trial(change=end, error=3.0 * math.sqrt(scatter), steps=steps)


Batch = list[tuple[object, int]]


def _direction(
    objective: Objective, point: Tensor, batch: Batch | None, rule: Rule | None, micro_batch: int | None
) -> tuple[float, Tensor]:
    """Mean loss and descent direction of one training batch at `point`; None stands for all samples.

    With a micro-batch every part of the batch makes its own ascent.
    """
    if rule is None or micro_batch is None:
        return _one_ascent(objective, point, batch, rule)
    everything: Batch = list(zip(objective.batches, objective.counts, strict=True))
    parts = regroup(batch if batch is not None else everything, micro_batch)
    total = sum(count for part in parts for _, count in part)
    loss, direction = 0.0, torch.zeros_like(point)
    for part in parts:
        share = sum(count for _, count in part) / total
        own_loss, own = _one_ascent(objective, point, part, rule)
        loss += share * own_loss
        direction.add_(own, alpha=share)
    return loss, direction


def _one_ascent(objective: Objective, point: Tensor, batch: Batch | None, rule: Rule | None) -> tuple[float, Tensor]:
    loss, gradient = _gradient(objective, point, batch)
    if rule is None:
        return loss, gradient
    ascent = rule.at(point, gradient)
    return loss, ascent.mix.direction(gradient, _gradient(objective, point + ascent.displacement, batch)[1])


def _gradient(objective: Objective, point: Tensor, batch: Batch | None) -> tuple[float, Tensor]:
    """Mean loss and gradient of one training batch at `point`; None stands for all samples."""
    objective.move_to(point)
    if batch is None:
        return objective.gradient()
    return objective.gradient_of(batch)


def _batches(objective: Objective, batch_size: int | None, seed: int) -> Iterator[Batch | None]:
    """Training batches without end, reshuffled every pass: pieces of the analysed batches, as many as fill one."""
    if batch_size is None:
        while True:
            yield None
    generator = torch.Generator().manual_seed(seed)
    everything: Batch = list(zip(objective.batches, objective.counts, strict=True))
    pieces = [piece for group in regroup(everything, batch_size) for piece in group]
    normed = bool(batch_norms(objective.model))
    if normed:  # a single sample has no statistics of its own
        pieces = [piece for piece in pieces if piece[1] > 1] or pieces
    while True:
        order = torch.randperm(len(pieces), generator=generator).tolist()
        for batch in regroup([pieces[i] for i in order], batch_size):
            whole = join(batch) if normed else None
            yield batch if whole is None else [whole]
