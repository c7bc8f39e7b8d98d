"""What a measurement starts from and no radius changes: the problem, its point with the gradient, and how to go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from samdiag.measure.ascent import Rule, rule_of
from samdiag.measure.opening import Opened
from samdiag.measure.point import Point, evaluate
from samdiag.measure.settings import MeasureSettings
from samdiag.patience import Patience
from samdiag.types import Problem

Progress = Callable[[str, int], None]  # (what is being done, Hessian products so far)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What does not depend on rho: the problem, the settings, and the point with its gradient."""

    problem: Problem
    settings: MeasureSettings
    ready: Opened
    here: Point
    rule: Rule
    tell: Progress
    patience: Patience


def begin(
    problem: Problem, settings: MeasureSettings, ready: Opened, tell: Progress, patience: Patience | None = None
) -> Base:
    """The point and its gradient; what is drawn from the kept batch gradients later costs nothing more."""
    tell("gradients", 0)
    objective = ready.objective
    here = evaluate(objective, objective.flat.double().clone())
    return Base(
        problem=problem,
        settings=settings,
        ready=ready,
        here=here,
        rule=rule_of(settings, objective),
        tell=tell,
        patience=patience or Patience(),
    )
