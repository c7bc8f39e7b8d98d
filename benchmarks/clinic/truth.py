"""What really happens next, by brute force and blind to the verdict; and what a case is called by it.

Labels: see `label`. They are computed from the stored numbers every time, never stored themselves.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.clinic.families import Family
from benchmarks.clinic.models import Saddle
from benchmarks.clinic.training import Setting, Trainer, norm_of

Plan = Callable[[int], Setting]
MOVES = 0.10  # share of the remaining loss that must come off for a run to count as moving
SGD_MOVES = 0.20  # the same for SGD where SAM does not: twice as much, so that it is SAM's fault
BORDER = 0.02  # around either share: such cases are counted apart
SLOWED = 0.5  # SAM's progress over SGD's below which a moving run is slowed
BORDER_RATIO = 0.05  # around that
ESCAPE_SLOWED = 2.0  # on saddles: SAM's escape steps over SGD's
LOOKS = 8  # moments of a continuation at which the loss over all data is taken, evenly, and at its
LATE = 4  # last steps, one after the other: a bounce of period 2 averages out


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A checkpoint: the network as it is there, the momentum buffer, the data that it was trained on."""

    family: Family
    setting: Setting
    model: nn.Module
    velocity: list[Tensor]
    data: TensorDataset

    def trainer(self, order: int) -> Trainer:
        """A run that goes on from here, on a copy, with the `order`-th order of the data."""
        return Trainer(
            copy.deepcopy(self.model),
            self.data,
            self.family.criterion,
            seed=5000 + order,  # not the order of the training so far
            velocity=self.velocity if self.setting.momentum > 0 else None,
            replacement=self.family.replacement,
        )


def steadily(setting: Setting) -> Plan:
    """The same setting at every step."""
    return lambda _step: setting


def sgd(setting: Setting) -> Setting:
    """Plain SGD with the same lr, momentum and batch."""
    return replace(setting, rho=0.0)


def continuations(point: Point, plan: Plan, watch: Callable[[Tensor], bool] | None = None) -> list[dict[str, Any]]:
    """H steps from the checkpoint under `plan`, once for every data order; see `continuation`."""
    return [continuation(point, plan, order, watch) for order in range(point.family.orders)]


def continuation(point: Point, plan: Plan, order: int, watch: Callable[[Tensor], bool] | None = None) -> dict[str, Any]:
    """One run of H steps: the loss and |g| over all data at a dozen moments, and when `watch` first saw an escape.

    On an unbounded loss it ends with the escape.
    """
    trainer, steps = point.trainer(order), point.family.horizon
    moments = {round(i * steps / LOOKS) for i in range(LOOKS)} | set(range(steps - LATE + 1, steps + 1))
    seen: dict[str, Any] = {"order": order, "setting": plan(0).name, "steps": [], "losses": [], "grads": []}
    escape = None
    for step in range(steps + 1):
        if step in moments:
            loss, norm = trainer.look()
            for name, value in (("steps", step), ("losses", loss), ("grads", norm)):
                seen[name].append(value)
            if not math.isfinite(loss):
                break
        if watch is not None and escape is None and watch(trainer.point()):
            escape = step
            if point.family.lower_bound is None:
                break
        if step < steps:
            trainer.step(plan(step))
    return {**seen, "escape": escape}


def saddle_exit(model: nn.Module) -> Callable[[Tensor], bool] | None:
    """Whether an exact saddle has been left: |lam_j x_j| of a negative direction is all of a usual gradient, |g_b| = 1.

    None for other networks.
    """
    if not isinstance(model, Saddle):
        return None
    lam = model.eigenvalues.clone()
    return lambda x: bool((lam * x)[lam < 0].abs().max() >= 1.0)


def truth_of(point: Point) -> dict[str, Any]:
    """The raw numbers behind a label: where the checkpoint is, how SAM goes on, and how SGD would."""
    trainer = point.trainer(0)
    loss, norm = trainer.look()
    watch = saddle_exit(point.model)
    found: dict[str, Any] = {"loss": loss, "grad": norm, "horizon": point.family.horizon}
    found["speed"] = norm_of(point.velocity)
    if watch is not None:
        found["left"] = watch(trainer.point())
    if not math.isfinite(loss) or found.get("left"):
        return {**found, "sam": [], "sgd": []}
    found["sam"] = continuations(point, steadily(point.setting), watch)
    found["sgd"] = continuations(point, steadily(sgd(point.setting)), watch)
    return found


def gain(runs: list[dict[str, Any]], loss: float) -> tuple[float, float]:
    """(share of the remaining loss taken off, its standard error), the mean over the orders; −inf where a run blew up.

    The lower bound of every loss here is 0; the end of a run is the mean of its last few steps.
    """
    shares = []
    for run in runs:
        if not math.isfinite(run["losses"][-1]):
            return -math.inf, 0.0
        shares.append((loss - statistics.fmean(run["losses"][-LATE:])) / loss if loss > 0 else 0.0)
    error = statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else 0.0
    return statistics.fmean(shares), error


def label(truth: dict[str, Any]) -> str:
    """The name of what happened.

    `stuck`: SAM takes off less than 10 % of the remaining loss in H steps where SGD takes off at least 20 %.
    `healthy`: SAM takes off at least 10 %. `slowed`: so, but less than half of what SGD takes off, or later: half of
    what SGD takes off in more than twice its steps. `resting`: neither takes off 10 %. `diverging`: SAM's loss becomes
    NaN or rises by more than 10 % and its noise. `borderline`: within 2 % of one of these lines, or within
    two standard errors where data orders differ. `left`: an exact saddle that had been left before the checkpoint;
    `blown-up`: NaN there.
    """
    if not math.isfinite(truth["loss"]):
        return "blown-up"
    if truth.get("left"):
        return "left"
    if "left" in truth:
        return _label_of_escapes(truth)
    (sam, error), (plain, scatter) = gain(truth["sam"], truth["loss"]), gain(truth["sgd"], truth["loss"])
    near, plain_near = max(BORDER, 2 * error), max(BORDER, 2 * scatter)
    if sam < -max(MOVES, 2 * error):
        return "diverging"
    if sam < MOVES - near:
        if plain >= SGD_MOVES + plain_near:
            return "stuck"
        return "resting" if plain < MOVES else "borderline"
    if sam < MOVES + near:
        return "borderline" if plain > sam / (1 - BORDER) else "healthy" if sam >= MOVES else "resting"
    ratio = sam / plain if plain > 0 else math.inf
    if abs(ratio - SLOWED) < BORDER_RATIO:
        return "borderline"
    return "slowed" if ratio < SLOWED or _is_late(truth) else "healthy"


def _is_late(truth: dict[str, Any]) -> bool:
    """Whether SAM comes half of SGD's way in more than ESCAPE_SLOWED times its steps, and a look later at least."""
    way = gain(truth["sgd"], truth["loss"])[0] * truth["loss"] / 2.0
    sam, plain = (statistics.fmean(_step_of(run, truth["loss"] - way) for run in truth[key]) for key in ("sam", "sgd"))
    return sam > ESCAPE_SLOWED * plain and sam - plain > truth["horizon"] / LOOKS


def _step_of(run: dict[str, Any], loss: float) -> float:
    """When the run's loss was first down to `loss`, on the straight line between two looks; its end if it never was."""
    looks = list(zip(run["steps"], run["losses"], strict=True))
    for (before, above), (after, below) in pairwise(looks):
        if below <= loss:
            return before if above <= loss else before + (after - before) * (above - loss) / (above - below)
    return looks[-1][0]


def _label_of_escapes(truth: dict[str, Any]) -> str:
    """The same for an exact saddle: moving is leaving it within H steps."""
    sam, plain = ([run["escape"] for run in truth[name]] for name in ("sam", "sgd"))
    if None in plain:
        return "resting" if set(sam) == {None} else "borderline"
    if set(sam) == {None}:
        return "stuck"
    if None in sam:
        return "borderline"
    return "slowed" if statistics.fmean(sam) > ESCAPE_SLOWED * statistics.fmean(plain) else "healthy"
