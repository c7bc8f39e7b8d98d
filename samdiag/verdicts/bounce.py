"""SAM jumps from wall to wall of a ravine."""

from __future__ import annotations

import math

from samdiag.theory.edge import bounced_curvature, sam_edge
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.cut_short import may_hide_saddle, why_cut
from samdiag.verdicts.foresight import foreseen
from samdiag.verdicts.reading import (
    is_critical,
    is_hallucination_candidate,
    keeps_pace,
    lowers_loss,
    run_gradient_ratio,
    run_loss_change,
    shown,
)
from samdiag.verdicts.saddle import applicable


def is_bouncing(m: Measurements) -> bool:
    """Whether |g+| > 2|g|, f(x+) > f(x), and the next step flips the gradient.

    The first two hold near every minimum that is closer than rho; the flip is what tells a bounce from a descent, and
    needs lr. Between half the stability edge and the edge a bounce has a ratio from 2 down to 1 (A9), and a descent
    flips the gradient as well: there the next steps must not lower the loss either.
    """
    ratio = run_gradient_ratio(m)
    return (
        m.variant != "usam"
        and not is_critical(m)
        and is_hallucination_candidate(m) is False
        and ratio.value is not None
        and (ratio.low > t.BOUNCE_RATIO or (ratio.low > 1.0 and lowers_loss(m) is not True))
        and run_loss_change(m).low > 0
        and m.lookahead_cosine is not None
        and m.lookahead_cosine <= t.BOUNCE_COSINE
    )


def _confidence(m: Measurements) -> Confidence:
    """Low with BatchNorm, whose batch statistics change the step; high where the gradient flips almost exactly."""
    if m.batch_norm:
        return Confidence.LOW
    return Confidence.HIGH if (m.lookahead_cosine or 0.0) < -0.9 else Confidence.MEDIUM


def _scale(m: Measurements) -> float:
    """What divides rho: |g|, with the batches' noise in mini-batch SAM."""
    if m.batch_update is None or not 0 < m.effective_radius < math.inf:
        return m.grad_norm.value or 0.0
    return m.rho / m.effective_radius


def _future(m: Measurements) -> str:
    """What is known of the negative directions beside the bounce; empty where there is nothing to say."""
    if may_hide_saddle(m):
        return f" Whether it also is at a saddle is open: {why_cut(m)} before lambda_min was known."
    if m.forecast is None or foreseen(m) is None:
        return ""
    if m.forecast.outcome == "stays":
        return f" Along the negative directions it does not leave in {m.forecast.steps} steps on the local quadratic."
    if m.forecast.outcome == "leaves":
        return " In the end it leaves along a weak negative direction, on the local quadratic."
    return " Whether it leaves along a negative direction is open: nearby starts and radii (±5 %) disagree."


def judge(m: Measurements) -> Finding | None:
    """`bounce`: the period-2 cycle of normalised SAM along a sharp direction.

    Not where the run, simulated on the local quadratic, leaves a saddle that has a verdict of its own, and not where
    the loss goes on falling as it does in plain steps: then the bounce costs nothing.

    Source: Bartlett, Long & Bousquet (bouncing across ravines); Long & Bartlett (edge of stability); theory A9.
    """
    ratio = run_gradient_ratio(m).value
    if not is_bouncing(m) or keeps_pace(m) or m.step_size is None or ratio is None:
        return None
    if foreseen(m) == "leaves" and applicable(m) is not None:
        return None
    lam = bounced_curvature(ratio, m.step_size, m.momentum, nesterov=m.nesterov)
    edge = sam_edge(_scale(m), m.rho, m.step_size, m.momentum, nesterov=m.nesterov)
    evidence: dict[str, float | int | str | None] = {
        "gradient_ratio": ratio,
        "loss_change": run_loss_change(m).value,
        "gradient_flip_cosine": m.lookahead_cosine,
        "bounced_curvature": lam,
        "sam_edge": edge,
        "lambda_max": m.lambda_max.value,
    }
    if m.batch_update is not None:
        evidence |= {"batch_samples": m.batch_update.size, "full_gradient_ratio": m.gradient_ratio.value}
    if m.forecast is not None and foreseen(m) is not None:
        evidence |= {"forecast": m.forecast.outcome, "forecast_steps": m.forecast.steps}
    return Finding(
        verdict="bounce",
        severity=Severity.INFO if m.batch_norm else Severity.WARNING,
        confidence=_confidence(m),
        evidence=evidence,
        message=(
            f"SAM jumps across a ravine of curvature {lam:.3g}: the shifted gradient is "
            f"{shown(ratio)} times the gradient and the "
            "next step lands on the other wall. At this rho further steps do not come closer to the valley floor; "
            "other directions may still go down." + _future(m)
        ),
        source="Bartlett, Long & Bousquet (bouncing across ravines); Long & Bartlett; docs/theory.md A9",
    )
