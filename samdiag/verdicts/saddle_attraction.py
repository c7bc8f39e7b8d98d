"""SAM is captured by a saddle (or a maximum) that plain gradient descent leaves."""

from __future__ import annotations

import math

from samdiag.types import Finding, Measurements, Severity
from samdiag.verdicts.reading import leaving_is_worth_it, shown
from samdiag.verdicts.saddle import applicable, batch_sentence, confidence, evidence


def judge(m: Measurements) -> Finding | None:
    """`saddle-attraction`: every negative direction is captured (rho_eff|lam| > 1), and leaving would be worth
    something.

    What the linear tests leave open, the run simulated on the local quadratic decides, where that is known exactly.
    With an incomplete spectrum, directions that were not seen may be free, but only at a rate below 1/(4 rho_eff):
    then the verdict needs that bound to be PRACTICAL_CAPTURE times slower than SGD.

    Source: KIM (arXiv 2301.06308) Thm 1, corrected to the eigenvalue of smallest magnitude; theory A2, A4–A7.
    """
    capture = applicable(m)
    if capture is None or not capture.captured or not leaving_is_worth_it(m):
        return None
    first = capture.negatives[0]
    product = first.radius * abs(m.lambda_min.value or 0.0)
    limit = 1.0 - m.weight_decay / abs(m.lambda_min.value or 1.0)
    if math.isinf(product):
        strength = "the gradient vanishes, so any rho captures"
    else:
        strength = f"rho_eff·|lambda_min| = {product:.3g} {'>' if product > limit else 'against'} {limit:.3g}"
    if capture.by_forecast and m.forecast is not None:
        strength += f", and on the local quadratic SAM does not leave in {m.forecast.steps} steps"
    if capture.by_trial:
        strength += f", and in a trial of {m.lookahead_steps} steps SAM goes nowhere where plain steps lower the loss"
    rest = (
        f"all {len(capture.negatives)} negative direction(s) are captured"
        if capture.slowdown is None or math.isinf(capture.slowdown)
        else "every direction that counts is captured, and any other is left at least "
        f"{capture.slowdown:.0f} times slower than by SGD"
    )
    return Finding(
        verdict="saddle-attraction",
        severity=Severity.ERROR,
        confidence=confidence(m, capture),
        evidence=evidence(m, capture),
        message=(f"lambda_min = {shown(m.lambda_min.value)} and {strength}; {rest}.{batch_sentence(m)}"),
        source="KIM (arXiv 2301.06308) Thm 1, corrected; docs/theory.md A2, A5, A7",
    )
