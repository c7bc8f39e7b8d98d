"""Phases of a schedule run on a problem: the real updates from a point, and the running statistics at their end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from samdiag.curvature.batches import can_be_cut, count_samples, join, tensors
from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_norms, batch_statistics
from samdiag.curvature.wrappers import unwrapped
from samdiag.measure.ascent import rule_of
from samdiag.measure.base import Progress
from samdiag.measure.dynamics import Update, Walk, training_batches
from samdiag.measure.opening import opened, seeded
from samdiag.measure.settings import MeasureSettings
from samdiag.remedies import Phase
from samdiag.types import Problem

SMALL = 2**22  # bytes of data that are one batch without a second thought: 4 MiB are 340 images of 32×32×3 in float32
OFTEN = 0.1  # seconds between two tellings of the progress: more often nobody can read

Statistics = tuple[
    tuple[Tensor, Tensor, Tensor], ...
]  # mean, variance and counter of every BatchNorm that records them


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a run stands: all that the next round needs.

    Attributes:
        point: [num_params] weights in float64, so that nothing is lost between rounds.
        velocity: [num_params] momentum buffer; None before the first step.
        statistics: of the BatchNorm layers at `point`; empty: those in the model.
    """

    point: Tensor
    velocity: Tensor | None
    statistics: Statistics = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Where the phases led.

    Attributes:
        end: the standing after the last update whose loss was a number.
        steps: updates made.
        loss: at the end, over all the samples that the steps were drawn from; not finite where the run diverged.
        fell: the loss had no floor and the run was ended.
        num_samples: that the steps were drawn from.
        batch_size: of the last phase; None: full batch.
        stopped: the exception that ended it early, an interruption included; None: it ran to its end.
        notes: what a reader should know about how it was run.
    """

    end: Standing
    steps: int
    loss: float
    fell: bool
    num_samples: int
    batch_size: int | None
    stopped: BaseException | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Course:
    """What is known while the updates are made."""

    walk: Walk
    fell: bool = False
    stopped: BaseException | None = None
    diverged: bool = False
    last: Update | None = None
    before: tuple[Tensor, Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.walk.point, self.walk.velocity


def standing_of(problem: Problem, velocity: Tensor | None = None) -> Standing:
    """The model's present weights, and a momentum buffer [num_params] if there is one."""
    weights = [p.detach().double().flatten() for p in unwrapped(problem.model).parameters() if p.requires_grad]
    return Standing(point=torch.cat(weights) if weights else torch.empty(0), velocity=velocity)


def put(problem: Problem, standing: Standing) -> None:
    """The problem's own model holds these weights and BatchNorm statistics, in its own dtypes."""
    model, offset = unwrapped(problem.model), 0
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(standing.point[offset : offset + p.numel()].view(p.shape))
                offset += p.numel()
        for norm, values in zip(_recording(model), standing.statistics, strict=False):
            for buffer, value in zip(_buffers(norm), values, strict=True):
                buffer.copy_(value)


def together(problem: Problem, settings: MeasureSettings) -> Problem:
    """The problem with all its data as one batch, for full-batch steps; as it is where that is not small.

    A step on one batch costs a third of one on eight, and BatchNorm sees the full batch, as it does in such a training.
    """
    pieces: list[tuple[object, int]] = []
    size = 0
    with seeded(settings.seed):
        for batch in problem.batches:
            pieces.append((batch, (problem.num_samples or count_samples)(batch)))
            size += sum(t.numel() * t.element_size() for t in tensors(batch))
            enough = settings.samples is not None and sum(count for _, count in pieces) >= settings.samples
            if size > SMALL or enough:
                break
    whole = join(pieces) if size <= SMALL and len(pieces) > 1 else None
    if whole is None or not can_be_cut(*whole):
        return problem
    data, total = whole
    return replace(problem, batches=[data], num_samples=lambda _: total, batch_size_is_training=False, keep=None)


def run_phases(
    problem: Problem,
    settings: MeasureSettings,
    phases: Sequence[Phase],
    start: Standing,
    *,
    floor: float = -math.inf,
    seed: int = 0,
    progress: Progress | None = None,
) -> Stretch:
    """The phases' updates from `start`, one after the other; the model comes back as it was (see `put`).

    What an error or an interruption leaves is returned with it.

    Args:
        problem: model, loss and data.
        settings: what a phase leaves open; lr must be known. `samples` limits the data that batches are drawn from.
        phases: every one with its steps.
        start: where the run stands.
        floor: a loss below which the run is ended: there is no floor.
        seed: of the order of the batches.
        progress: called with what is being done.
    """
    tell = progress or (lambda _what, _count: None)
    with opened(problem, settings) as ready:
        objective = ready.objective
        velocity = None if start.velocity is None else start.velocity.to(objective.device)
        course = _Course(walk=Walk(objective, start.point.to(objective.device), seed=seed, velocity=velocity))
        configured = Update.configured(settings, rule_of(settings, objective), ready.batch_size)
        try:
            with batch_statistics(objective.model):
                _run(course, configured, phases, floor, tell)
        except (Exception, KeyboardInterrupt) as stopped:  # what was done so far must not be lost
            course.stopped = stopped
        point, velocity = course.before if course.diverged or course.fell else (course.walk.point, course.walk.velocity)
        batch_size = ready.batch_size if course.last is None else course.last.batch_size
        objective.move_to(point)
        statistics = _recomputed(objective, batch_size, seed) if course.walk.count else start.statistics
        return Stretch(
            end=Standing(point=point, velocity=velocity, statistics=statistics),
            steps=course.walk.count,
            loss=math.inf if course.diverged else objective.loss(),
            fell=course.fell,
            num_samples=objective.num_samples,
            batch_size=batch_size,
            stopped=course.stopped,
            notes=_remarks(objective.model, batch_size, objective),
        )


def _run(
    course: _Course, configured: Update, phases: Sequence[Phase], floor: float, tell: Callable[[str, int], None]
) -> None:
    """Makes the updates until they are done, the loss is no number any more, or it fell below `floor`."""
    total, told = sum(phase.steps or 0 for phase in phases), 0.0
    for made in range(total):
        course.last = configured.scheduled(phases, made)
        before = course.walk.point, course.walk.velocity
        loss = course.walk.step(course.last)
        course.diverged = math.isnan(loss) or loss == math.inf
        course.fell = loss < floor
        if course.diverged or course.fell:
            course.before = before
            return
        if time.monotonic() - told > OFTEN:
            told = time.monotonic()
            tell(f"step {made + 1} of {total}, loss {loss:.4g}", 0)


# ---------------------------------------------------------------- BatchNorm


def _recording(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers that record running statistics."""
    return [norm for norm in batch_norms(model) if norm.running_mean is not None and norm.running_var is not None]


def _buffers(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    counter = norm.num_batches_tracked
    return norm.running_mean, norm.running_var, torch.zeros(()) if counter is None else counter


def _recomputed(objective: Objective, batch_size: int | None, seed: int) -> Statistics:
    """Running statistics at the objective's point: the mean over one pass of training batches.

    Source: torch.optim.swa_utils.update_bn, whose cumulative average this is.
    """
    norms = _recording(objective.model)
    if not norms:
        return ()
    with _averaging(norms), torch.no_grad():
        for batch in _one_pass(objective, batch_size, seed):
            objective.loss_function(objective.model, batch)
    return tuple((mean.clone(), var.clone(), counter.clone()) for mean, var, counter in map(_buffers, norms))


def _one_pass(objective: Objective, batch_size: int | None, seed: int) -> Iterator[object]:
    if batch_size is None:
        yield from objective.batches
        return
    seen, stream = 0, training_batches(objective, batch_size, seed)
    while seen < objective.num_samples - 1:  # a last single sample is left out of the batches
        for data, count in next(stream) or ():
            seen += count
            yield data


@contextmanager
def _averaging(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """The layers record the plain mean over the batches that pass inside."""
    kept = [(norm, norm.training, norm.track_running_stats, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = True  # first: resetting does nothing without
            norm.reset_running_stats()
            norm.training, norm.momentum = True, None
        yield
    finally:
        for norm, training, tracked, momentum in kept:
            norm.training, norm.track_running_stats, norm.momentum = training, tracked, momentum


# ---------------------------------------------------------------- remarks


def _remarks(model: nn.Module, batch_size: int | None, objective: Objective) -> tuple[str, ...]:
    found = []
    if _recording(model):
        size = "all data" if len(objective.batches) == 1 else f"the {len(objective.batches)} batches"
        size = size if batch_size is None else f"batches of {batch_size}"
        found.append(
            f"BatchNorm: the steps used the batches' own statistics; the running ones of the new weights are the mean "
            f"over one pass of {size}"
        )
    if has_dropout(model):
        found.append("dropout stayed off in the steps; your own training has it on")
    return tuple(found)


def has_dropout(model: nn.Module) -> bool:
    """Whether some layer would drop something in training."""
    for module in model.modules():
        share = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else getattr(module, "dropout", 0.0)
        if isinstance(share, float) and share > 0:
            return True
    return False
