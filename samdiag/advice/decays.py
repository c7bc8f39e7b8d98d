"""Decay of rho where its size is what stands in the way: the bounce and the convergence floor."""

from __future__ import annotations

import math

from samdiag.advice.rho import DECAY
from samdiag.advice.situation import Situation
from samdiag.remedies import Phase, Schedule
from samdiag.theory.edge import bounce_gradient, bounced_curvature
from samdiag.theory.floor import convergence_floor
from samdiag.theory.prescription import decay_steps
from samdiag.theory.saddle import captured_while_bouncing
from samdiag.verdicts.reading import run_gradient_ratio

MAX_DECAY = 10_000  # steps; slower directions than this allows are not waited for
GENTLE = 0.01  # of lambda_max: flatter directions are not waited for, progress in them does not depend on rho
LOOK = "diagnose again when rho has come down: SAM then does little, and as |g| falls a saddle may catch it"
TRAP = "a lower learning rate makes traps of saddles (docs/theory.md A6): diagnose again"


def of_bounce(situation: Situation) -> tuple[Schedule | None, tuple[Schedule, ...]]:
    """rho to a tenth while the bounce follows, |g| = lambda·eta·lambda·rho/(2(1+gamma) − eta·lambda); or a lower lr.

    Source: theory A9.
    """
    m = situation.m
    lam = _bounced(situation)
    if m.step_size is None or lam <= 0:
        return _by_hand(situation, "the bounce"), ()
    now, end = (bounce_gradient(lam, r, m.step_size, m.momentum, nesterov=m.nesterov) for r in (m.rho, DECAY * m.rho))
    steps = decay_steps(DECAY, lam, m.step_size, m.momentum, nesterov=m.nesterov)
    if math.isinf(end) or math.isinf(steps):
        return _by_hand(situation, "the bounce"), ()
    chosen = _decay(situation, steps, f"the bounce's |g| falls from {now:.3g} to {end:.3g}", "docs/theory.md A9")
    return chosen, _slower(situation, lam, now)


def _bounced(situation: Situation) -> float:
    """The curvature across which it bounces, read off the ratio of the gradients, at most lambda_max.

    Source: theory A9.
    """
    m = situation.m
    top, ratio = m.lambda_max.value or 0.0, run_gradient_ratio(m).value
    if m.step_size is None or ratio is None or ratio <= 0:
        return top
    return min(top, bounced_curvature(ratio, m.step_size, m.momentum, nesterov=m.nesterov))


def _slower(situation: Situation, lam: float, now: float) -> tuple[Schedule, ...]:
    """A tenth of the learning rate at the present rho."""
    m = situation.m
    assert m.lr is not None
    assert m.step_size is not None
    eta = DECAY * m.step_size
    end = bounce_gradient(lam, m.rho, eta, m.momentum, nesterov=m.nesterov)
    bottom = situation.bottom
    trap = bottom is not None and captured_while_bouncing(
        bottom.eigenvalue.value or 0.0, lam, eta, m.momentum, nesterov=m.nesterov
    )
    return (
        Schedule(
            kind="lower-lr",
            phases=(Phase(steps=None, rho=m.rho, lr=DECAY * m.lr),),
            effect=f"the bounce's |g| falls from {now:.3g} to {end:.3g} at the present rho",
            risk=("here it does make a trap: " if trap else "") + TRAP,
            source="docs/theory.md A9, A6",
        ),
    )


def of_floor(situation: Situation) -> Schedule | None:
    """rho to a tenth in steps that the gradient's own direction can follow; the floor lambda_max·rho falls with it.

    It begins where the floor is |g|, if that is below the present rho: above it nothing is gained. The direction's
    curvature is uᵀHu, at least GENTLE of lambda_max.

    Source: SI, constant rho; theory D, convergence floor.
    """
    m = situation.m
    top = m.lambda_max.value or 0.0
    if m.step_size is None or top <= 0:
        return _by_hand(situation, "the floor")
    lam = max(m.directional_curvature.value or 0.0, GENTLE * top)
    steps = decay_steps(DECAY, lam, m.step_size, m.momentum, nesterov=m.nesterov)
    floor, norm = convergence_floor(m.rho, top), m.grad_norm.value or 0.0
    if math.isinf(steps):
        return _by_hand(situation, "the floor")
    first = floor_rho(situation)
    words = (
        f"the floor lambda_max·rho falls from {floor:.3g} to {DECAY * top * first:.3g}, and |g|, which follows it, "
        f"from {norm:.3g} to about {DECAY * norm:.3g}"
    )
    return _decay(situation, steps, words, "SI (arXiv 2306.09850); docs/theory.md D", first=first)


def floor_rho(situation: Situation) -> float:
    """The radius at which the floor lambda_max·rho is |g|, at most the present one.

    Source: SI; theory D, convergence floor.
    """
    m = situation.m
    top, norm = m.lambda_max.value or 0.0, m.grad_norm.value or 0.0
    return min(m.rho, norm / top) if top > 0 and norm > 0 else m.rho


def _decay(situation: Situation, steps: float, effect: str, source: str, *, first: float | None = None) -> Schedule:
    start = situation.m.rho if first is None else first
    count = max(2, math.ceil(min(steps, MAX_DECAY)))
    end = DECAY * start
    return Schedule(
        kind="rho-decay",
        phases=(Phase(steps=count, rho=start, rho_end=end), Phase(steps=None, rho=end)),
        effect=f"in {count} steps {effect}",
        risk=LOOK,
        source=source,
        steps=float(count),
    )


def _by_hand(situation: Situation, what: str) -> Schedule:
    """The end of the decay as a constant rho, where no pace can be given for want of a learning rate."""
    return Schedule(
        kind="constant",
        phases=(Phase(steps=None, rho=DECAY * situation.m.rho),),
        effect=f"{what} is proportional to rho; in how many steps it follows is not predicted",
        risk=LOOK,
        source="docs/theory.md D",
    )
