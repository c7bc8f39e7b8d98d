"""The replicates of one setting as one run: means, their errors, and how far the loss swings at the end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

from samdiag.measure.continuations import Continuation
from samdiag.measure.probe_session import Runner
from samdiag.probes import ProbedRun, ProbePoint

LATE_POINTS = 4  # whose distance from their own line says how much the loss swings at the end


def summarise(setting: Continuation, runners: Sequence[Runner]) -> ProbedRun:
    """The replicates of one setting as means with standard errors."""
    points = tuple(_mean_point(together) for together in zip(*(r.points for r in runners), strict=True))
    gains = [r.points[0].loss - _end(r.points) for r in runners]
    finite = all(math.isfinite(gain) for gain in gains)
    scatter = _deviation(gains) / math.sqrt(len(gains)) if finite and len(gains) > 1 else 0.0
    update = setting.update_at(0)
    return ProbedRun(
        name=setting.name,
        rho=update.rule.rho if update.rule is not None else 0.0,
        lr=update.lr,
        momentum=update.momentum,
        batch_size=update.batch_size,
        micro_batch=update.micro_batch,
        replicates=len(runners),
        points=points,
        gain=statistics.fmean(gains) if finite else -math.inf,
        gain_error=math.hypot(scatter, _swing(points)) if finite else 0.0,
        escapes=tuple(r.escape for r in runners) if setting.exit_distance is not None else (),
        exit_distance=setting.exit_distance,
        expected_steps=setting.expected_steps,
        schedule=setting.schedule,
        diverged=sum(r.diverged for r in runners),
    )


def _end(points: Sequence[ProbePoint]) -> float:
    """The loss at the end: of the last two steps, where they were both recorded, the mean (a period-2 bounce)."""
    last = points[-1]
    if len(points) > 2 and points[-2].step == last.step - 1:
        return (last.loss + points[-2].loss) / 2.0
    return last.loss


def _swing(points: Sequence[ProbePoint]) -> float:
    """How far the last losses lie from their own straight line, as a standard deviation; 0 for too few.

    0 too where they go one way and make up half of all the change or more: a loss that grows or falls as a power of the
    steps bends away from a line and does not swing.
    """
    late = points[-LATE_POINTS:]
    if len(late) < LATE_POINTS or not all(math.isfinite(p.loss) for p in late):
        return 0.0
    changes = [after.loss - before.loss for before, after in pairwise(late)]
    one_way = all(change > 0 for change in changes) or all(change < 0 for change in changes)
    if one_way and abs(late[-1].loss - late[0].loss) >= 0.5 * abs(late[-1].loss - points[0].loss):
        return 0.0
    size = max(abs(p.loss) for p in late) or 1.0  # a loss without a floor may be too large to be squared
    steps, losses = [float(p.step) for p in late], [p.loss / size for p in late]
    slope, at_zero = statistics.linear_regression(steps, losses)
    squares = sum((loss - at_zero - slope * step) ** 2 for step, loss in zip(steps, losses, strict=True))
    return size * math.sqrt(squares / (len(late) - 2))


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation, also of values that are too large to be squared."""
    size = max(abs(v) for v in values)
    return size * statistics.stdev([v / size for v in values]) if size > 0 else 0.0


def _mean_point(together: Sequence[ProbePoint]) -> ProbePoint:
    """Means over replicates at one step, the gradients the first one's; the loss is infinite where one has diverged."""
    losses = [p.loss for p in together]
    finite = all(math.isfinite(loss) for loss in losses)
    several = finite and len(losses) > 1
    return ProbePoint(
        step=together[0].step,
        loss=statistics.fmean(losses) if finite else math.inf,
        loss_error=_deviation(losses) / math.sqrt(len(losses)) if several else 0.0,
        grad_norm=together[0].grad_norm,
        gradient_ratio=together[0].gradient_ratio,
        gradient_cosine=together[0].gradient_cosine,
        displacement=_mean([p.displacement for p in together]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None
