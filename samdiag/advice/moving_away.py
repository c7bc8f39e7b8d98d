"""Schedules that leave a hallucinated point: rho within every bound for the steps that moving away takes."""

from __future__ import annotations

import math

from samdiag.advice.rho import OFF
from samdiag.advice.situation import Situation
from samdiag.remedies import Advice, Phase, Schedule
from samdiag.theory.diffusion import escape_steps

HOLD = 2.0  # times the estimate, which takes the curvature along the segment for constant
AWAY = 0.5  # of the ridge distance: the displacement that counts as moved away; at all of it the loss may end
MAX_STEPS = 100_000  # a longer estimate is none
LOOK = (
    "diagnose again then: rho = 0.9 s* alone left the hallucination and fell into a saddle's trap (docs/theory.md B7)"
)
NO_CURE = (
    "a warm start with plain steps is not a cure in itself: on a tanh problem it raised the hallucinated runs from 31 "
    "to 54 of 60 (docs/theory.md B7)"
)


def schedules(situation: Situation, rho: Advice) -> tuple[Schedule | None, tuple[Schedule, ...]]:
    """rho below every bound of D1 while the point moves away, and PARK's warm start with its caveat.

    Where the saddle's bound is 0, for want of a gradient along lambda_min, the others are obeyed.

    Source: theory B6, B7, D1.
    """
    m = situation.m
    bounds = [bound for bound, _ in situation.rho_bounds() if bound > 0]
    lower = rho.recommended if rho.recommended is not None else min(bounds, default=math.inf)
    if lower >= m.rho:
        return None, ()
    return _shrunk(situation, lower), _warm_start(situation)


def _shrunk(situation: Situation, rho: float) -> Schedule:
    steps = away_steps(situation, rho)
    phase = Phase(steps=None, rho=rho)
    held = Phase(steps=max(1, math.ceil(HOLD * steps)), rho=rho) if steps is not None else phase
    off = ", in effect plain steps" if rho < OFF * situation.m.rho else ""
    when = (
        f"moved away by half of the ridge distance in about {steps} steps"
        if steps is not None
        else "in how many steps is not predicted (no ridge distance, or no learning rate)"
    )
    return Schedule(
        kind="rho-warm-up",
        phases=(held, phase) if steps is not None else (phase,),
        effect=f"SAM at rho {rho:.3g}{off} no longer reaches across the ridge, and the point repels: {when}",
        risk=LOOK,
        source="docs/theory.md B5, B7, D1",
        steps=float(steps) if steps is not None else None,
    )


def _warm_start(situation: Situation) -> tuple[Schedule, ...]:
    """Plain steps for as long, then the present rho; nothing where no number of steps can be given."""
    steps = away_steps(situation, 0.0)
    if steps is None:
        return ()
    count = max(1, math.ceil(HOLD * steps))
    return (
        Schedule(
            kind="sgd-then-sam",
            phases=(Phase(steps=count, rho=0.0), Phase(steps=None, rho=situation.m.rho)),
            effect=f"plain steps move away by half of the ridge distance in about {steps}, then SAM at the present rho",
            risk=f"{NO_CURE}; SAM at the present rho may hallucinate again",
            source="PARK (arXiv 2509.21818), warm start; docs/theory.md B7",
            steps=float(steps),
        ),
    )


def away_steps(situation: Situation, rho: float) -> int | None:
    """Steps of SAM at `rho` below the ridge distance s* that displace the point by AWAY·s*; None where unknown.

    Along the segment the slope falls from |g| to 0 at s*, so its mean curvature is −|g|/s*, and SAM's gradient at a
    displacement z is (|g|/s*)(s* − rho + z): z + s* − rho grows like a direction of curvature −|g|/s* from s* − rho.

    Source: theory B6 (mean curvature along the segment); (D) the linear slope.
    """
    m = situation.m
    ridge, slope = m.ridge_distance.value, m.grad_norm.value
    if m.step_size is None or ridge is None or not slope or m.perturbation_norm <= 0:
        return None
    reach = rho * m.perturbation_norm / m.rho  # |e| at this rho
    if ridge <= 0 or reach >= ridge:
        return None
    return escape_steps(
        offset=ridge - reach,
        noise=0.0,
        exit_distance=ridge - reach + AWAY * ridge,
        mu=-slope / ridge,
        lr=m.step_size,
        momentum=m.momentum,
        nesterov=m.nesterov,
        max_steps=MAX_STEPS,
    )
