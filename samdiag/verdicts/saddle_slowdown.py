"""The saddle is left, but much more slowly than by plain gradient descent."""

from __future__ import annotations

from samdiag.types import Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.reading import shown
from samdiag.verdicts.saddle import applicable, batch_sentence, confidence, evidence, forecast_clause


def judge(m: Measurements) -> Finding | None:
    """`saddle-slowdown`: not captured, but the retained escape rate is below SGD's by SLOWDOWN or more.

    Retained rate = max over negative lam of |lam|(1 − rho_eff|lam|); SGD's is |lambda_min|. No saddle is left faster
    than 1/(4 rho_eff).

    Source: theory A4.
    """
    capture = applicable(m)
    if capture is None or capture.captured or capture.slowdown is None or capture.slowdown < t.SLOWDOWN:
        return None
    return Finding(
        verdict="saddle-slowdown",
        severity=Severity.WARNING,
        confidence=confidence(m, capture),
        evidence=evidence(m, capture),
        message=(
            f"SAM leaves this saddle {'' if m.spectrum_complete else 'at least '}{capture.slowdown:.3g} times "
            "slower than SGD would: "
            f"lambda_min = {shown(m.lambda_min.value)}, effective radius "
            f"{capture.negatives[0].radius:.3g}{forecast_clause(m, capture)}.{batch_sentence(m)}"
        ),
        source="KIM (arXiv 2301.06308) Thm 1 and Sec. 4, graded; docs/theory.md A4",
    )
