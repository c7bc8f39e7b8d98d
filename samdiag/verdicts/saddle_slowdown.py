"""The saddle is left, but much more slowly than by plain gradient descent."""

from __future__ import annotations

from samdiag.types import Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.reading import leaving_is_worth_it, shown
from samdiag.verdicts.saddle import applicable, batch_sentence, confidence, evidence, forecast_clause


def judge(m: Measurements) -> Finding | None:
    """`saddle-slowdown`: not captured, but the retained escape rate is below SGD's by SLOWDOWN or more.

    A run that goes down at a pace that counts, in other directions or on its way into the trap (rho_eff|lam_min| > 1),
    is slowed as well where a long trial shows plain steps to go down SLOWDOWN times as fast.

    Retained rate = max over negative lam of |lam|(1 − rho_eff|lam|); SGD's is |lambda_min|. No saddle is left faster
    than 1/(4 rho_eff).

    Source: theory A4.
    """
    capture = applicable(m)
    if capture is None or capture.slowdown is None:
        return None
    still = leaving_is_worth_it(m)
    seen = not still and m.effective_radius * abs(m.lambda_min.value or 0.0) > 1.0
    if (still and capture.captured) or (not seen and capture.slowdown < t.SLOWDOWN):
        return None
    return Finding(
        verdict="saddle-slowdown",
        severity=Severity.WARNING,
        confidence=confidence(m, capture),
        evidence=evidence(m, capture),
        message=(
            _outpaced(m)
            if not still
            else f"SAM leaves this saddle {'' if m.spectrum_complete else 'at least '}{capture.slowdown:.3g} times "
            "slower than SGD would: "
            f"lambda_min = {shown(m.lambda_min.value)}, effective radius "
            f"{capture.negatives[0].radius:.3g}{forecast_clause(m, capture)}.{batch_sentence(m)}"
        ),
        source="KIM (arXiv 2301.06308) Thm 1 and Sec. 4, graded; docs/theory.md A4",
    )


def _outpaced(m: Measurements) -> str:
    """What the long trial saw, in words."""
    start, sam, plain = shown(m.loss.value), shown(m.lookahead_loss), shown(m.lookahead_loss_sgd)
    return (
        f"SAM goes down beside a saddle (lambda_min = {shown(m.lambda_min.value)}, effective radius "
        f"{shown(m.effective_radius)}), and more slowly than SGD would: the trend of {m.lookahead_steps} steps leads "
        f"from {start} to {sam}, that of plain steps to {plain}.{batch_sentence(m)}"
    )
