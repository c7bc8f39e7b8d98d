"""The update that training makes, one step at a time and in memory: SAM's ascent, momentum, decay, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samdiag.curvature.batches import can_be_cut, join, pick, regroup, tensors
from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_norms
from samdiag.measure.ascent import Rule
from samdiag.measure.settings import MeasureSettings
from samdiag.remedies import Phase

Batch = list[tuple[object, int]]
MOST_COPIED = 2**28  # bytes of data held a second time, as one tensor, to draw samples from: 256 MiB are hardly noticed


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One optimiser step's settings.

    Attributes:
        rule: SAM's ascent; None: plain gradients.
        lr, momentum, dampening, nesterov, weight_decay: as in torch.optim.SGD; the decay is in the update.
        batch_size: samples per step; None: all.
        micro_batch: samples behind one ascent gradient; None: the batch.
    """

    rule: Rule | None
    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    batch_size: int | None = None
    micro_batch: int | None = None

    @classmethod
    def configured(cls, settings: MeasureSettings, rule: Rule | None, batch_size: int | None) -> Update:
        """The update that `settings` describe; lr must be known."""
        assert settings.lr is not None
        return cls(
            rule=rule,
            lr=settings.lr,
            momentum=settings.momentum,
            dampening=settings.dampening,
            nesterov=settings.nesterov,
            weight_decay=settings.update_decay,
            batch_size=batch_size,
            micro_batch=settings.micro_batch,
        )

    def in_phase(self, phase: Phase, step: int) -> Update:
        """This update with what `phase` changes at its update `step` = 0, 1, …

        Nesterov needs momentum: a phase that sets it to 0 is plain.
        """
        rho = phase.rho_at(step)
        changed = replace(self, **phase.changes)
        return replace(
            changed,
            rule=None if rho <= 0 or self.rule is None else self.rule.with_rho(rho),
            nesterov=self.nesterov and changed.momentum > 0,
        )

    def scheduled(self, phases: Sequence[Phase], step: int) -> Update:
        """This update as the phases, one after the other, have it at update `step` = 0, 1, … of them all.

        The last phase goes on, whatever its steps.
        """
        for phase in phases[:-1]:
            if phase.steps is None or step < phase.steps:
                return self.in_phase(phase, step)
            step -= phase.steps
        return self.in_phase(phases[-1], step)


class Walk:
    """A run from a point: every `step` makes one update. The objective is left wherever its last gradient was taken.

    Attributes:
        point, velocity: [num_params] now; velocity None before the first step where none was given.
        count: updates made.
    """

    def __init__(
        self,
        objective: Objective,
        point: Tensor,
        *,
        seed: int,
        velocity: Tensor | None = None,
        pool: Pool | None = None,
    ) -> None:
        """From `point` with this momentum buffer; `seed` orders the batches, drawn from `pool` where several walks
        share one.

        Without a buffer the first step takes the whole gradient into it, as torch.optim.SGD does.
        """
        self.point = point.clone()
        self.velocity = None if velocity is None else velocity.clone()
        self.count = 0
        self._objective = objective
        self._seed = seed
        self._pool = pool
        self._streams: dict[int | None, Iterator[Batch | None]] = {}

    def step(self, update: Update) -> float:
        """Makes one update; returns the loss of its batch at the point before it.

        v ← gamma·v + (1 − d)(F_b + wd·x), x ← x − eta·v (Nesterov: eta(F_b + wd·x + gamma·v)). Without momentum
        x ← x − eta(F_b + wd·x): as in torch, v stays as it is and there is no dampening.

        Source: SAM as Foret et al., algorithm 1, with the momentum of PyTorch's SGD.
        """
        loss, direction = self._direction(update)
        direction = direction + update.weight_decay * self.point
        self.point = self.point - update.lr * self._taken(update, direction)
        self.count += 1
        return loss

    def _taken(self, update: Update, direction: Tensor) -> Tensor:
        """The step over eta, with the velocity moved on."""
        if update.momentum == 0:
            return direction
        if self.velocity is None:
            self.velocity = direction.clone()
        else:
            self.velocity = update.momentum * self.velocity + (1.0 - update.dampening) * direction
        return direction + update.momentum * self.velocity if update.nesterov else self.velocity

    def _direction(self, update: Update) -> tuple[float, Tensor]:
        if update.batch_size not in self._streams:
            self._pool = self._pool or Pool.of(self._objective)
            self._streams[update.batch_size] = training_batches(
                self._objective, update.batch_size, self._seed, pool=self._pool
            )
        batch = next(self._streams[update.batch_size])
        return descent_direction(self._objective, self.point, batch, update.rule, update.micro_batch)


def descent_direction(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The analysed samples that training batches are drawn from.

    Attributes:
        pieces: as the objective has them, with their counts.
        whole: as one batch with its count; None where they do not fit together, or are too large for a second copy.
        normed: whether BatchNorm sees them, which cannot normalise a single sample.
        independent: every batch is drawn anew, with replacement, as if from a training set without end. Passes over a
            part of the training set come back to the same samples too soon, and within a pass the batches' noise
            cancels: on a quadratic saddle with passes of 8 steps that delayed escapes by 40 %. Not where the samples do
            not fit together.
    """

    pieces: Batch
    whole: tuple[object, int] | None
    normed: bool
    independent: bool = False

    @classmethod
    def of(cls, objective: Objective, *, independent: bool = False) -> Pool:
        """The samples of `objective`."""
        pieces: Batch = list(zip(objective.batches, objective.counts, strict=True))
        whole = join(pieces) if _size(pieces) <= MOST_COPIED else None
        if whole is not None and not can_be_cut(*whole):
            whole = None
        return cls(pieces=pieces, whole=whole, normed=bool(batch_norms(objective.model)), independent=independent)


def training_batches(
    objective: Objective, batch_size: int | None, seed: int, *, pool: Pool | None = None
) -> Iterator[Batch | None]:
    """Training batches without end, drawn from the analysed samples as a shuffling DataLoader draws them.

    Every pass has another order; a ragged last batch is kept, unless it is a single sample that BatchNorm could not
    normalise. None, each time, for full batches. Batches that do not fit together as one tensor, or are too large for a
    second copy, are cut into pieces once, and the pieces are shuffled. `pool`: the samples, where they are at hand, and
    whether batches are independent of each other instead.
    """
    if batch_size is None:
        while True:
            yield None
    pool = pool or Pool.of(objective)
    generator = torch.Generator().manual_seed(seed)
    if pool.whole is not None and pool.independent:
        yield from _independent_samples(*pool.whole, batch_size, generator)
    elif pool.whole is not None:
        yield from _shuffled_samples(*pool.whole, batch_size, generator, normed=pool.normed)
    yield from _shuffled_pieces(pool.pieces, batch_size, generator, normed=pool.normed)


def _size(pieces: Batch) -> int:
    """Bytes of the tensors."""
    return sum(t.numel() * t.element_size() for data, _ in pieces for t in tensors(data))


def _independent_samples(data: object, count: int, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        rows = torch.randint(count, (batch_size,), generator=generator)
        yield [(pick(data, count, rows), batch_size)]


def _shuffled_samples(
    data: object, count: int, batch_size: int, generator: torch.Generator, *, normed: bool
) -> Iterator[Batch]:
    fewest = 2 if normed and count > 1 else 1
    while True:
        order = torch.randperm(count, generator=generator)
        for rows in torch.split(order, batch_size):
            if len(rows) >= fewest:
                yield [(pick(data, count, rows), len(rows))]


def _shuffled_pieces(
    everything: Batch, batch_size: int, generator: torch.Generator, *, normed: bool
) -> Iterator[Batch]:
    pieces = [piece for group in regroup(everything, batch_size) for piece in group]
    if normed:  # a single sample has no statistics of its own
        pieces = [piece for piece in pieces if piece[1] > 1] or pieces
    while True:
        order = torch.randperm(len(pieces), generator=generator).tolist()
        for batch in regroup([pieces[i] for i in order], batch_size):
            whole = join(batch) if normed else None
            yield batch if whole is None else [whole]
