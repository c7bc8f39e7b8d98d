"""Diagnose, apply, diagnose again until the verdict is harmless: the treatment of a problem in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from samdiag.errors import UsageError
from samdiag.pipeline import Progress
from samdiag.remedies import Phase
from samdiag.treating.examined import Examined, examine
from samdiag.treating.reasons import has_moved, why_no_way, why_rescued, why_used_up
from samdiag.treating.ways import Way, recipe_of, settings_after, timed, ways_of
from samdiag.treatment import HARMLESS, Outcome, Round, State, Treatment
from samdiag.types import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from samdiag.measure.settings import MeasureSettings
    from samdiag.measure.treatment import Standing, Stretch

ROUNDS = 5
DIVERGED = 10.0  # times the loss at stake that it may rise in a round; a bounce's rise is about once
BOTTOMLESS = 1e6  # times the loss at stake that it may fall where nothing is known to bound it: there is no floor
AS_BEFORE = "as before"

Tell = Callable[[str], None]


def treat_problem(
    problem: Problem,
    settings: MeasureSettings,
    *,
    rounds: int = ROUNDS,
    steps: int | None = None,
    velocity: Tensor | None = None,
    samples: int | None = None,
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> Treatment:
    """What following the prescription does to a run; the model is left holding the weights that the treatment kept.

    Args:
        problem: model, loss and data.
        settings: the training settings to begin with, lr included, and how hard to look.
        rounds: at most so many prescriptions.
        steps: of a phase that the prescription leaves open; None: 500, or twice the predicted ones.
        velocity: [num_params] momentum buffer to begin with.
        samples: that the steps are drawn from, at least; None: all.
        tell: called with a line about what is applied, and one about what it did.
        progress: called with what is being done and the products so far.

    Raises:
        UsageError: lr is not known, or the problem is not usable.
        CannotDecide: a point cannot be examined.
    """
    course = Course(problem, settings, steps=steps, velocity=velocity, samples=samples, tell=tell, progress=progress)
    try:
        return course.run(rounds)
    finally:
        course.leave()


class Course:
    """One treatment on its way.

    `watch` sees the first diagnosis where there is something to treat, and every round that is over.

    Attributes:
        rounds: those that are over.
        kept: the best standing so far, which `leave` puts into the model.
        examined: the diagnosis of the weights in the model; None before the first.
    """

    def __init__(
        self,
        problem: Problem,
        settings: MeasureSettings,
        *,
        steps: int | None = None,
        velocity: Tensor | None = None,
        samples: int | None = None,
        tell: Tell | None = None,
        progress: Progress | None = None,
        watch: Callable[[State | Round], None] | None = None,
    ) -> None:
        from samdiag.measure.treatment import standing_of

        if settings.lr is None:
            raise UsageError("the learning rate is not known, and a treatment makes steps", "give it: --lr 0.1")
        self.problem, self.settings = problem, settings
        self.rounds: list[Round] = []
        self.examined: Examined | None = None
        self.first: Examined | None = None
        self.notes: tuple[str, ...] = ()
        self.num_samples: int | None = None
        self._samples, self._steps = samples, steps
        self._tell, self._progress = tell or (lambda _line: None), progress
        self._watch = watch or (lambda _seen: None)
        self._start = self._standing = standing_of(problem, velocity)
        self.kept = _Kept(standing=self._start, settings=settings)
        self._failed: list[tuple[Phase, ...]] = []  # ways that did not help at this diagnosis

    # ---------------------------------------------------------------- the order

    def run(self, rounds: int) -> Treatment:
        """Diagnoses, applies, diagnoses again, at most `rounds` times; how it ended."""
        self.first = self.examined = examine(self.problem, self.settings, self._progress)
        self.kept = _Kept(standing=self._start, settings=self.settings, examined=self.examined)
        if self.examined.verdict in HARMLESS:
            return self.ended(Outcome.NOTHING, "nothing holds this run")
        self._watch(self.first.state)
        for number in range(1, rounds + 1):
            way = self._way()
            if way is None:
                return self.ended(Outcome.NOT_RESCUED, why_no_way(self.examined, self.rounds))
            self._round(number, rounds, way)
            if self.rounds[-1].verdict_after is not None and self.examined.has_gone_well(self.first):
                return self.ended(Outcome.RESCUED, why_rescued(self.first, self.examined))
        return self.ended(Outcome.NOT_RESCUED, why_used_up(self.first, self.examined, self.rounds))

    def ended(self, outcome: Outcome, reason: str) -> Treatment:
        """The treatment as it stands."""
        from samdiag.advice.safe_rho import theory_bounds

        after = self.kept.examined
        bounds = () if after is None else theory_bounds(after.measurements)
        return Treatment(
            outcome=outcome,
            reason=reason,
            rounds=tuple(self.rounds),
            before=None if self.first is None else self.first.state,
            after=None if after is None else after.state,
            recipe=None if self.first is None else recipe_of(self.kept.settings, self.first.measurements),
            improved=self.improved,
            safe=tuple(sorted(bounds, key=lambda bound: bound[1])),
            num_samples=self.num_samples,
            notes=self.notes,
            velocity=self.kept.standing.velocity,
        )

    @property
    def improved(self) -> bool:
        """Whether the weights that are kept are other than the first ones."""
        return self.kept.standing is not self._start

    def leave(self) -> None:
        """Puts what is kept into the model."""
        from samdiag.measure.treatment import put

        if self._standing is not self.kept.standing:
            put(self.problem, self.kept.standing)
            self._standing = self.kept.standing

    # ---------------------------------------------------------------- one round

    def _round(self, number: int, rounds: int, way: Way) -> None:
        from samdiag.reports.treat_text import applied, effect

        assert self.examined is not None
        begun, before = time.perf_counter(), self.examined
        start = recipe_of(self.settings, before.measurements)
        self._tell(f"round {number} of {rounds}: {applied(before.state, way.phases, start)}")
        stretch = self._run(number, way)
        diverged = self._is_worse(stretch, before)
        verdict, settings = None, settings_after(self.settings, way.phases[-1])
        stopped = stretch.stopped
        if diverged:
            self._failed.append(way.phases)
        else:
            self._arrive(stretch, settings)
            if stopped is None:
                stopped = self._judge(way, before, settings, stretch.loss)
                verdict = self.examined.verdict if stopped is None else None
        entry = Round(
            number=number,
            before=before.state,
            kind=way.kind,
            start=start,
            phases=way.phases,
            steps=stretch.steps,
            loss_after=stretch.loss if math.isfinite(stretch.loss) else None,
            verdict_after=verdict,
            seconds=time.perf_counter() - begun,
            diverged=diverged,
            note=_remark(stretch, diverged, stopped),
        )
        self.rounds.append(entry)
        self._watch(entry)
        self._tell(f"  {effect(entry)}")
        if stopped is not None:
            raise stopped

    def _run(self, number: int, way: Way) -> Stretch:
        from samdiag.measure.treatment import run_phases, together

        assert self.examined is not None
        loss, stake = self.examined.measurements.loss.value or 0.0, self.examined.at_stake
        bounded = self.examined.measurements.loss_lower_bound is not None
        settings = replace(self.settings, samples=self._samples)
        whole = self.examined.measurements.batch_size is None and all(p.batch_size is None for p in way.phases)
        whole = whole and settings.micro_batch is None and all(p.micro_batch is None for p in way.phases)
        stretch = run_phases(
            together(self.problem, settings) if whole else self.problem,
            settings,
            way.phases,
            self._standing,
            floor=-math.inf if bounded or stake <= 0 else loss - BOTTOMLESS * stake,
            seed=self.settings.seed + number - 1,  # another order of the batches in every round
            progress=self._progress,
        )
        self.notes, self.num_samples = stretch.notes, stretch.num_samples
        return stretch

    def _arrive(self, stretch: Stretch, settings: MeasureSettings) -> None:
        """The model holds where the steps led; it is kept where the loss is the lowest so far."""
        from samdiag.measure.treatment import put

        self._standing = stretch.end
        put(self.problem, stretch.end)
        best = self.kept.loss
        if best is None or stretch.loss < best:
            self.kept = _Kept(standing=stretch.end, settings=settings, reached=stretch.loss)

    def _judge(self, way: Way, before: Examined, settings: MeasureSettings, reached: float) -> BaseException | None:
        """Diagnoses where the steps led, and so the way that led there; what ended the diagnosis early, if anything."""
        try:
            after = examine(self.problem, settings, self._progress)
        except (Exception, KeyboardInterrupt) as stopped:  # the round's steps must not be lost
            return stopped
        assert self.first is not None
        self.examined, self.settings = after, settings
        if after.has_gone_well(self.first) or self._standing is self.kept.standing:
            self.kept = _Kept(standing=self._standing, settings=settings, examined=after, reached=reached)
        if has_moved(before, after) or after.verdict != before.verdict:
            self._failed.clear()
        else:
            self._failed.append(way.phases)
        return None

    def _is_worse(self, stretch: Stretch, before: Examined) -> bool:
        """Whether the steps have to be undone."""
        if not math.isfinite(stretch.loss):
            return True
        return stretch.loss > (before.measurements.loss.value or 0.0) + DIVERGED * before.at_stake

    # ---------------------------------------------------------------- what to do next

    def _way(self) -> Way | None:
        """The first way of the prescription that has not failed here; else the first again, or the last setting."""
        assert self.examined is not None
        ways = ways_of(self.examined.prescription, self.settings)
        if not ways and self.rounds and self.rounds[-1].verdict_after is not None:
            ways = (Way(kind=AS_BEFORE, phases=(Phase(steps=None, rho=self.settings.rho),)),)  # nothing said against it
        undone = self.rounds[-1].phases if self.rounds and self.rounds[-1].diverged else None
        lengths = [way for way in (timed(way, self._steps) for way in ways) if way.phases]
        fresh = [way for way in lengths if way.phases not in self._failed]
        again = [way for way in lengths if way.phases != undone]
        return next(iter(fresh or (again if undone is None else [])), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The best standing so far, under which settings, and its diagnosis where there is one."""

    standing: Standing
    settings: MeasureSettings
    examined: Examined | None = None
    reached: float | None = None  # loss over the samples of the steps; None: of the diagnosis

    @property
    def loss(self) -> float | None:
        if self.reached is not None or self.examined is None:
            return self.reached
        return self.examined.measurements.loss.value


def _remark(stretch: Stretch, diverged: bool, stopped: BaseException | None) -> str:
    if diverged:
        return "the loss diverged: back to the round's start"
    if stopped is not None:
        when = "in the steps" if stretch.stopped is not None else "in the diagnosis after them"
        what = "interrupted" if isinstance(stopped, KeyboardInterrupt) else type(stopped).__name__
        return f"ended early {when}: {what}"
    return "ended early: the loss has no floor" if stretch.fell else ""
