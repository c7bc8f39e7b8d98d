"""Near a saddle, and on the way out at nearly plain gradient descent's pace."""

from __future__ import annotations

from samdiag.types import Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.reading import leaving_is_worth_it, shown
from samdiag.verdicts.saddle import applicable, confidence, evidence, forecast_clause


def judge(m: Measurements) -> Finding | None:
    """`saddle-escaping`: near a saddle whose fastest direction keeps more than 1/SLOWDOWN of SGD's escape rate.

    Source: theory A2, A4.
    """
    capture = applicable(m)
    if (
        capture is None
        or not leaving_is_worth_it(m)
        or capture.captured
        or capture.slowdown is None
        or capture.slowdown >= t.SLOWDOWN
    ):
        return None
    return Finding(
        verdict="saddle-escaping",
        severity=Severity.INFO,
        confidence=confidence(m, capture),
        evidence=evidence(m, capture),
        message=(
            f"near a saddle (lambda_min = {shown(m.lambda_min.value)}), but SAM leaves it at "
            f"{100 / capture.slowdown:.0f} % of SGD's rate{forecast_clause(m, capture)}."
        ),
        source="KIM (arXiv 2301.06308) Thm 1; docs/theory.md A4",
    )
