"""At rest where it should be."""

from __future__ import annotations

from samdiag.theory.edge import stability_edge
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.capture import read_capture
from samdiag.verdicts.cut_short import may_hide_saddle
from samdiag.verdicts.reading import (
    is_critical,
    is_hallucination_candidate,
    is_small_loss,
    is_stalled,
    leaving_is_worth_it,
    shown,
)
from samdiag.verdicts.unstable import edge_position


def judge(m: Measurements) -> Finding | None:
    """`minimum`: nothing moves, no negative direction that is worth leaving, and the step is stable.

    Exact where lambda_min's interval is above 0; above −wd it is a minimum of the loss with its decay, which the
    update descends. With an incomplete spectrum an eigenvalue at 0 is called a minimum to the resolution stated; with a
    complete one it is `undecided`, unless the loss is at its known lower bound.

    Source: second-order sufficient condition; theory A1.
    """
    position = edge_position(m)
    if position is not None and position[2] >= stability_edge(m.momentum, nesterov=m.nesterov):
        return None
    if (
        not m.self_check.passed
        or not is_stalled(m)
        or is_hallucination_candidate(m) is not False
        or m.lambda_max.low + m.weight_decay <= 0
        or may_hide_saddle(m)
    ):
        return None
    capture = read_capture(m)
    resting = m.lambda_min.low + m.weight_decay > 0 and (
        m.lambda_min_bound is None or m.lambda_min_bound + m.weight_decay > 0
    )
    if not resting and not is_small_loss(m):
        if capture.negatives and leaving_is_worth_it(m):
            return None
        if is_critical(m) and m.spectrum_complete:
            return None
    return Finding(
        verdict="minimum",
        severity=Severity.INFO,
        confidence=Confidence.HIGH if resting and is_critical(m) and m.lambda_min.low > 0 else Confidence.MEDIUM,
        evidence={
            "gradient_norm": m.grad_norm.value,
            "lambda_min": m.lambda_min.value,
            "lambda_min_bound": m.lambda_min_bound,
            "lambda_max": m.lambda_max.value,
            "loss": m.loss.value,
        },
        message=_message(m, resting),
        source="second-order sufficient condition; docs/theory.md A1",
    )


def _message(m: Measurements, resting: bool) -> str:
    if resting and m.lambda_min.low <= 0:
        return (
            f"a minimum of the loss with its weight decay {m.weight_decay:.3g}: |g| = "
            f"{shown(m.grad_norm.value, 2)}, and lambda_min = {shown(m.lambda_min.value)} is less negative than that."
        )
    if resting:
        return (
            f"a minimum: |g| = {shown(m.grad_norm.value, 2)} and every eigenvalue is positive "
            f"(lambda_min = {shown(m.lambda_min.value)})."
        )
    if is_small_loss(m):
        return f"the loss {shown(m.loss.value, 2)} is at its lower bound: nothing is left to gain."
    if m.lambda_min.low > 0:
        return (
            f"a minimum as far as can be seen: |g| = {shown(m.grad_norm.value, 2)}, no negative eigenvalue was found, "
            f"and with probability {m.lambda_min_bound_probability:g} there is none below {shown(m.lambda_min_bound)}."
        )
    negative = ""
    if (m.lambda_min.value or 0.0) < 0:
        negative = (
            f"; the negative curvature {shown(m.lambda_min.value, 2)} that remains would not pay within {t.HORIZON} "
            "steps of SGD either"
        )
    return (
        f"at rest to the resolution of the measurement: less than {100 * t.PROGRESS:.0f} % of the loss can be gained "
        f"in {t.HORIZON} steps{negative}."
    )
