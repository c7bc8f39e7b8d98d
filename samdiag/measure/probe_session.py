"""The probe's runs side by side: their steps and records, and the clock they are held to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samdiag.measure.base import Base
from samdiag.measure.continuations import Continuation
from samdiag.measure.dynamics import Walk
from samdiag.patience import Patience
from samdiag.probes import ProbePoint

MOST_POINTS = 12  # records of a run: four in its last third, enough to tell a trend from swings
FEWEST_POINTS = 6  # where a record costs as much as many steps: two in its last third, and the one before the last
FIRST_STEPS = 2  # of every run are timed before the cost is stated: the first one has start-up costs in it
BUDGET_FOR_RECORDS = 1 / 3  # of the budget at most: steps are what a probe is for

Announce = Callable[[str], None]


@dataclass(slots=True)
class Runner:
    """One replicate: its walk, what was recorded on the way, and when it left."""

    setting: Continuation
    walk: Walk
    start: Tensor
    is_first: bool
    points: list[ProbePoint] = field(default_factory=list)
    escape: int | None = None
    diverged: bool = False

    def step(self) -> None:
        """One update, and whether the exit distance has been reached with it."""
        if self.diverged:
            return
        loss = self.walk.step(self.setting.update_at(self.walk.count))
        self.diverged = math.isnan(loss) or loss == math.inf or not bool(torch.isfinite(self.walk.point).all())
        away, edge = self.displacement(), self.setting.exit_distance
        if self.escape is None and away is not None and edge is not None and away >= edge:
            self.escape = self.walk.count

    def displacement(self) -> float | None:
        """Distance from the ridge along the most negative direction."""
        direction = self.setting.direction
        if direction is None:
            return None
        return abs(self.setting.start_distance + float(torch.dot(self.walk.point - self.start, direction)))

    def record(self, base: Base, step: int, known: tuple[float, Tensor] | None = None) -> None:
        """The loss over all samples after `step` steps; of the first replicate the gradient and the shifted one too.

        `known` is the loss and the gradient where they are known already.
        """
        objective = base.ready.objective
        loss, gradient = math.inf, None
        if known is not None:
            loss, gradient = known
        elif not self.diverged:
            objective.move_to(self.walk.point)
            loss, gradient = objective.gradient() if self.is_first else (objective.loss(), None)
        self.diverged = self.diverged or math.isnan(loss) or loss == math.inf
        norm = None if gradient is None or self.diverged else float(torch.linalg.vector_norm(gradient))
        ratio, cosine = self._shifted(base, gradient, norm) if gradient is not None and norm else (None, None)
        point = ProbePoint(
            step=step,
            loss=math.inf if self.diverged else loss,
            loss_error=0.0,
            grad_norm=norm,
            gradient_ratio=ratio,
            gradient_cosine=cosine,
            displacement=None if self.diverged else self.displacement(),
        )
        self.points.append(point)

    def _shifted(self, base: Base, gradient: Tensor, norm: float) -> tuple[float | None, float | None]:
        """Ratio and cosine of this run's own shifted gradient; None for plain steps and at a critical point."""
        rule = self.setting.update_at(self.walk.count).rule
        if rule is None:
            return None, None
        objective = base.ready.objective
        ascent = rule.at(self.walk.point, gradient)
        objective.move_to(self.walk.point + ascent.displacement)
        shifted = ascent.mix.direction(gradient, objective.gradient()[1])
        length = float(torch.linalg.vector_norm(shifted))
        if not math.isfinite(length):
            return None, None
        return length / norm, (float(torch.dot(shifted, gradient)) / (length * norm) if length > 0 else None)


@dataclass(slots=True)
class Session:
    """The runs side by side, and the clock they are held to."""

    base: Base
    began: float
    budget: float | None
    asked: int
    runners: list[Runner]
    settings: Sequence[Continuation]
    patience: Patience
    done: int = 0
    step_seconds: float = 0.0  # of one step of all runs
    record_seconds: float = 0.0  # of one record of all runs

    def of(self, setting: Continuation) -> list[Runner]:
        """The replicates of a setting."""
        return [runner for runner in self.runners if runner.setting is setting]

    def go(self, announce: Announce) -> None:
        """Every run up to the last step that the budget allows."""
        self._begin()
        first = min(FIRST_STEPS, self.asked)
        for _ in range(first):
            self._timed_step()
        steps, points = self._plan()
        announce(self._cost(steps, points))
        grid = {round(i * steps / points) for i in range(1, points)} | {steps - 1, steps}
        if self.done in grid:
            self._record()
        while self.done < steps:
            if self._must_end():
                self._end()
                return
            self._timed_step()
            if self.done in grid:
                self._record()

    def _begin(self) -> None:
        """The record at the checkpoint: one gradient for all runs, and the shifted one of each first replicate."""
        objective = self.base.ready.objective
        objective.move_to(self.base.here.x)
        start = time.perf_counter()
        known = objective.gradient()
        one = time.perf_counter() - start
        for runner in self.runners:
            if runner.is_first:
                runner.record(self.base, 0, known)
            else:
                runner.points.append(self.of(runner.setting)[0].points[0])
        # all of this, and a gradient of every other setting; a loss is about a third of a gradient
        settings, losses = len(self.settings), len(self.runners) - len(self.settings)
        self.record_seconds = time.perf_counter() - start + one * (settings - 1 + losses / 3.0)

    def _timed_step(self) -> None:
        start = time.perf_counter()
        for runner in self.runners:
            runner.step()
        self.done += 1
        took = time.perf_counter() - start
        # the first step has start-up costs in it; a mean over about the last ten follows a machine that slows down
        self.step_seconds = took if self.done <= FIRST_STEPS else 0.9 * self.step_seconds + 0.1 * took

    def _record(self) -> None:
        start = time.perf_counter()
        for runner in self.runners:
            runner.record(self.base, self.done)
        self.record_seconds = time.perf_counter() - start

    def _plan(self) -> tuple[int, int]:
        """How many steps the budget allows, and how many records: as many as cost no more than the steps do."""
        per_step, per_record = max(self.step_seconds, 1e-9), max(self.record_seconds, 1e-9)
        points = max(FEWEST_POINTS, min(MOST_POINTS, int(self.asked * per_step / per_record)))
        if self.budget is None:
            return self.asked, points
        left = self.budget - self._elapsed()
        points = max(2, min(points, int(BUDGET_FOR_RECORDS * left / per_record)))
        steps = int((left - (points + 1) * per_record) / per_step) + self.done
        return max(self.done, min(self.asked, steps)), points

    def _cost(self, steps: int, points: int) -> str:
        """One line: what is run, and how long it takes."""
        replicates = max(len(self.of(setting)) for setting in self.settings)
        size = f"{len(self.settings)} settings × {replicates} replicate{'s' if replicates > 1 else ''} × "
        seconds = self._elapsed() + (steps - self.done) * self.step_seconds + (points + 1) * self.record_seconds
        if self.budget is not None and seconds > self.budget:
            return f"verify: {size}{steps} steps, about {seconds:.2g} s: fewer would tell nothing, whatever is allowed"
        if self.budget is not None and steps < self.asked:
            return (
                f"verify: {size}{steps} of {self.asked} steps: the {self.budget:.3g} s allowed are enough for no more"
            )
        allowed = "" if self.budget is None else f" of the {self.budget:.3g} s allowed"
        return f"verify: {size}{steps} steps, about {max(seconds, 0.1):.2g} s{allowed}"

    def _elapsed(self) -> float:
        return time.perf_counter() - self.began

    def _must_end(self) -> bool:
        """Whether one more step would leave no time for the last two records."""
        if self.patience.interrupted:
            return True
        last = 2 * self.step_seconds + 2 * self.record_seconds
        return self.budget is not None and self._elapsed() + last > self.budget

    def _end(self) -> None:
        """The last two steps with their records: a bounce shows in their difference alone."""
        if self.runners[0].points[-1].step < self.done:
            self._record()
        if not self.patience.interrupted or self.done == 0:
            self._timed_step()
            self._record()
