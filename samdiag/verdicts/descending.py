"""Nothing is wrong: SAM goes down."""

from __future__ import annotations

from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.reading import is_stalled, lowers_loss, progress, shown


def judge(m: Measurements) -> Finding | None:
    """`descending`: the next steps lower the loss (with lr), or the shifted gradient points uphill as the gradient
    does (without).

    Source: theory F; the descent lemma, f(x − eta·g+) ≈ f − eta·g·g+.
    """
    down = lowers_loss(m)
    if is_stalled(m) or m.gradient_cosine.value is None or down is False:
        return None
    if (m.gradient_cosine.low if down is None else m.gradient_cosine.value) <= 0:
        return None
    share = progress(m)
    pace = (
        f"; at this pace {100 * share:.0f} % of the remaining loss within {t.HORIZON} steps"
        if share is not None and share < 1
        else ""
    )
    doubt = ""
    if m.lr is None and (m.gradient_ratio.value or 0.0) > t.BOUNCE_RATIO and (m.loss_change.value or 0.0) > 0:
        doubt = " Without lr a bounce cannot be told from a descent here: give --lr."
    return Finding(
        verdict="descending",
        severity=Severity.INFO,
        confidence=Confidence.LOW if doubt else (Confidence.MEDIUM if down is None else Confidence.HIGH),
        evidence={
            "gradient_cosine": m.gradient_cosine.value,
            "gradient_ratio": m.gradient_ratio.value,
            "loss": m.loss.value,
            "lookahead_loss": m.lookahead_loss,
            "progress_share": None if share is None else min(share, 1.0),
        },
        message=f"SAM's step goes downhill (cosine with the gradient {shown(m.gradient_cosine.value)}){pace}.{doubt}",
        source="descent lemma; docs/theory.md F",
    )
