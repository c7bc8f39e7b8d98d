"""SAM jumps from wall to wall of a ravine."""

from __future__ import annotations

from samdiag.theory.edge import bounced_curvature, sam_edge
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.reading import is_critical, is_hallucination_candidate, shown


def is_bouncing(m: Measurements) -> bool:
    """Whether |g+| > 2|g|, f(x+) > f(x), and the next step flips the gradient.

    The first two hold near every minimum that is closer than rho; the flip is what tells a bounce from a descent, and
    needs lr.
    """
    return (
        m.variant != "usam"
        and not is_critical(m)
        and is_hallucination_candidate(m) is False
        and m.gradient_ratio.value is not None
        and m.gradient_ratio.low > t.BOUNCE_RATIO
        and m.loss_change.low > 0
        and m.lookahead_cosine is not None
        and m.lookahead_cosine <= t.BOUNCE_COSINE
    )


def _confidence(m: Measurements) -> Confidence:
    """Low with BatchNorm, whose batch statistics change the step; high where the gradient flips almost exactly."""
    if m.batch_norm:
        return Confidence.LOW
    return Confidence.HIGH if (m.lookahead_cosine or 0.0) < -0.9 else Confidence.MEDIUM


def judge(m: Measurements) -> Finding | None:
    """`bounce`: the period-2 cycle of normalised SAM along a sharp direction.

    Source: Bartlett, Long & Bousquet (bouncing across ravines); Long & Bartlett (edge of stability); theory A9.
    """
    if not is_bouncing(m) or m.lr is None or m.gradient_ratio.value is None:
        return None
    lam = bounced_curvature(m.gradient_ratio.value, m.lr, m.momentum)
    edge = sam_edge(m.grad_norm.value or 0.0, m.rho, m.lr, m.momentum)
    return Finding(
        verdict="bounce",
        severity=Severity.INFO if m.batch_norm else Severity.WARNING,
        confidence=_confidence(m),
        evidence={
            "gradient_ratio": m.gradient_ratio.value,
            "loss_change": m.loss_change.value,
            "gradient_flip_cosine": m.lookahead_cosine,
            "bounced_curvature": lam,
            "sam_edge": edge,
            "lambda_max": m.lambda_max.value,
        },
        message=(
            f"SAM jumps across a ravine of curvature {lam:.3g}: the shifted gradient is "
            f"{shown(m.gradient_ratio.value)} times the gradient and the "
            "next step lands on the other wall. Along this direction further steps do not come closer; "
            "other directions may still go down."
        ),
        source="Bartlett, Long & Bousquet (bouncing across ravines); Long & Bartlett; docs/theory.md A9",
    )
