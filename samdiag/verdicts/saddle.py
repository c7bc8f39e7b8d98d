"""What the saddle verdicts share: when they apply, and the evidence they show."""

from __future__ import annotations

import math

from samdiag.theory.saddle import critical_batch_size
from samdiag.types import Confidence, Measurements
from samdiag.verdicts.capture import Capture, capture_threshold, read_capture
from samdiag.verdicts.foresight import foreseen
from samdiag.verdicts.hallucination import outranks_saddle
from samdiag.verdicts.reading import is_near_saddle, is_seen_slowed, leaving_is_worth_it


def applicable(m: Measurements) -> Capture | None:
    """The capture reading where a saddle verdict makes sense: negative directions for certain, near, not hallucinated,
    and either worth leaving or seen to hold SAM back.
    """
    if outranks_saddle(m):
        return None
    capture = read_capture(m)
    if not capture.negatives or not capture.decided or not (leaving_is_worth_it(m) or is_seen_slowed(m)):
        return None
    held = capture.captured and not capture.by_forecast  # what is still far off is no capture yet
    return capture if held or is_near_saddle(m) else None


def batch_limit(m: Measurements) -> float | None:
    """B_crit along lambda_min; None where the noise is unknown or rho is not divided by |g|.

    What is compared with it is the batch behind the ascent gradient: the micro-batch in m-SAM.

    Source: theory A7.
    """
    if m.variant not in ("sam", "gsam") or m.noise_trace.value is None or m.lambda_min.value is None:
        return None
    return critical_batch_size(m.noise_trace.value, m.rho, m.lambda_min.value, m.grad_norm.value or 0.0, m.population)


def evidence(m: Measurements, capture: Capture) -> dict[str, float | int | str | None]:
    first = capture.negatives[0]
    numbers: dict[str, float | int | str | None] = {
        "lambda_min": m.lambda_min.value,
        "negative_directions": len(capture.negatives),
        "sustained_radius": first.radius,
        "radius_times_lambda_min": first.radius * abs(m.lambda_min.value or 0.0),
        "slowdown": capture.slowdown,
        "gradient_norm": m.grad_norm.value,
        "critical_batch_size": batch_limit(m),
        "batch_size": "full batch" if m.batch_size is None else m.batch_size,
    }
    if m.micro_batch is not None:
        numbers["ascent_batch"] = m.ascent_batch
    if m.forecast is not None and foreseen(m) is not None:
        numbers |= {"forecast": m.forecast.outcome, "forecast_steps": m.forecast.steps}
    if capture.binding is not None:
        numbers["binding_eigenvalue"] = capture.binding.direction.eigenvalue.value
        numbers["binding_threshold"] = capture_threshold(capture.binding, m.weight_decay)
    return numbers


def confidence(m: Measurements, capture: Capture) -> Confidence:
    """High where theory is exact; medium where the step leaves the quadratic picture, cross terms are left out (ASAM,
    GSAM), or the forecast had to decide; lower for several of them.
    """
    doubts = int((m.quadratic_error or 0.0) > 0.5) + int(m.variant == "gsam" or m.variant.startswith("asam"))
    doubts += int(not m.lambda_min.converged) + int(capture.by_forecast or capture.by_trial)
    return (Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW)[min(doubts, 2)]


def forecast_clause(m: Measurements, capture: Capture) -> str:
    """What the forecast says of an escape, where the linear tests alone would not have said it."""
    if not capture.by_forecast or m.forecast is None or foreseen(m) != "leaves":
        return ""
    return f" (on the local quadratic it leaves within {m.forecast.steps} steps)"


def batch_sentence(m: Measurements) -> str:
    """What the batch size has to do with it, in one sentence."""
    limit = batch_limit(m)
    if limit is None or limit < 1 or math.isinf(limit):
        return ""
    name = "batch size" if m.micro_batch is None else "micro-batch"  # what the ascent sees
    samples = m.batch_size if m.ascent_batch is None else m.ascent_batch
    size = "full batch" if samples is None else f"{name} {samples}"
    return f" Gradient noise frees it below {name} {limit:.3g} ({size} now)."
