"""What the saddle verdicts share: when they apply, and the evidence they show."""

from __future__ import annotations

import math

from samdiag.theory.saddle import critical_batch_size
from samdiag.types import Confidence, Measurements
from samdiag.verdicts.capture import Capture, capture_threshold, read_capture
from samdiag.verdicts.reading import is_downhill_hallucination, is_near_saddle, leaving_is_worth_it


def applicable(m: Measurements) -> Capture | None:
    """The capture reading where a saddle verdict makes sense: negative directions for certain, near, not hallucinated,
    worth leaving.
    """
    if is_downhill_hallucination(m):
        return None
    capture = read_capture(m)
    if not capture.negatives or not capture.decided or not leaving_is_worth_it(m):
        return None
    return capture if capture.captured or is_near_saddle(m) else None


def batch_limit(m: Measurements) -> float | None:
    """B_crit along lambda_min; None where the noise is unknown or the variant is not normalised.

    Source: theory A7.
    """
    if m.variant != "sam" or m.noise_trace.value is None or m.lambda_min.value is None:
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
    if capture.binding is not None:
        numbers["binding_eigenvalue"] = capture.binding.direction.eigenvalue.value
        numbers["binding_threshold"] = capture_threshold(capture.binding, m.weight_decay)
    return numbers


def confidence(m: Measurements) -> Confidence:
    """High where theory is exact; medium where the step leaves the quadratic picture or ASAM's cross terms are left
    out; low for both.
    """
    doubts = int((m.quadratic_error or 0.0) > 0.5) + int(m.variant == "asam") + int(not m.lambda_min.converged)
    return (Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW, Confidence.LOW)[doubts]


def batch_sentence(m: Measurements) -> str:
    """What the batch size has to do with it, in one sentence."""
    limit = batch_limit(m)
    if m.variant != "sam" or limit is None:
        return ""
    if limit < 1 or math.isinf(limit):
        return ""
    size = "full batch" if m.batch_size is None else f"batch size {m.batch_size}"
    return f" Gradient noise frees it below batch size {limit:.3g} ({size} now)."
