"""A short run of the real update, in memory: whether the loss goes on falling with noise and momentum in it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.batches import cut_into
from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_norms
from samdiag.measure.ascent import variant_named

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
    objective: Objective,
    x: Tensor,
    *,
    rho: float | None,
    variant: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int | None,
    seed: int,
) -> Trial:
    """v ← gamma·v + ∇f_b(x + e_b) + wd·x, x ← x − eta·v from v = 0, on batches as in training.

    Noise and momentum lift a captured run above the saddle. A few noiseless steps only let that excess relax, which
    looks like progress and is none; the middle and the last third of the real dynamics have the same excess. The
    objective is left at `x`.

    Args:
        objective: at any point; its batches are cut or joined to `batch_size`.
        x: [num_params] the checkpoint.
        rho: SAM's radius; None for plain gradients.
        variant: of SAM.
        lr, momentum, weight_decay: of the update.
        batch_size: of training; None: every step sees all samples.
        seed: of the order of the batches.

    Source: SAM as Foret et al., algorithm 1, with the heavy ball of PyTorch's SGD.
    """
    whole = batch_size is None
    steps = SHORT if batch_size is None else _num_steps(objective.num_samples, batch_size)
    stream = _batches(objective, batch_size, seed)
    point, velocity = x.clone(), torch.zeros_like(x)
    losses: list[tuple[int, float]] = []
    every = 1 if whole else max(steps // POINTS, 1)
    try:
        with _batch_statistics(objective):
            for step in range(1, steps + 1):
                batch = next(stream)
                loss, gradient = _gradient(objective, point, batch)
                if whole:
                    losses.append((step, loss))
                if rho is not None:
                    e = variant_named(variant)(point, gradient, rho).displacement
                    gradient = _gradient(objective, point + e, batch)[1]
                velocity = momentum * velocity + gradient + weight_decay * point
                point = point - lr * velocity
                if not whole and step % every == 0:
                    objective.move_to(point)
                    losses.append((step, objective.loss()))
            return _trend(losses, steps)
    finally:
        objective.move_to(x)


@contextmanager
def _batch_statistics(objective: Objective) -> Iterator[None]:
    """BatchNorm with the batch's own statistics, as in training; its running ones come back afterwards."""
    norms = batch_norms(objective.model)
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        for norm in norms:
            norm.train()
        yield
    finally:
        for norm in norms:
            norm.eval()
        for buffer, value in kept:
            buffer.copy_(value)


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
    pieces = [
        piece
        for data, count in zip(objective.batches, objective.counts, strict=True)
        for piece in cut_into(data, count, batch_size)
    ]
    if batch_norms(objective.model):  # a single sample has no statistics of its own
        pieces = [piece for piece in pieces if piece[1] > 1] or pieces
    batch: Batch = []
    while True:
        for i in torch.randperm(len(pieces), generator=generator).tolist():
            batch.append(pieces[i])
            if sum(count for _, count in batch) >= batch_size or len(batch) == len(pieces):
                yield batch
                batch = []
