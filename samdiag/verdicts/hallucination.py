"""What both hallucination verdicts look at: the vanishing shifted gradient and the SAM Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

from samdiag.theory.hallucination import is_attracting
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.reading import (
    is_hallucinated,
    is_hallucination_candidate,
    predicts_fixed_point,
    run_loss_change,
    run_update_ratio,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hallucination:
    attracting: bool
    zero_modes: int
    smallest: complex | None  # eigenvalue of J with the smallest real part, zero modes aside


def read_hallucination(m: Measurements) -> Hallucination | None:
    """Whether the point is hallucinated and attracts; None where the signature does not hold.

    Source: PARK Def. 2.1; theory B3.
    """
    if not is_hallucination_candidate(m) or m.jacobian_eigenvalues is None or not m.self_check.passed:
        return None
    values = [complex(re, im) for re, im in m.jacobian_eigenvalues]
    zero = m.jacobian_zero or 0.0
    attracting, modes = is_attracting(values, zero, m.step_size, m.momentum, nesterov=m.nesterov)
    if not is_hallucinated(m) and (attracting or predicts_fixed_point(m)):
        return None
    live = [v for v in values if abs(v) > zero]
    return Hallucination(
        attracting=attracting, zero_modes=modes, smallest=min(live, key=lambda v: v.real) if live else None
    )


def outranks_saddle(m: Measurements) -> bool:
    """Whether what is known of the hallucination leaves nothing for the saddle tests to say.

    Where x+ lies lower, where J attracts, where the quadratic at x says nothing about x+, or exactly at a zero of g+,
    where nothing moves but by J. A repelling point beside the edge of a saddle's trap is part of that saddle.

    Source: theory F2, F4.
    """
    if not is_hallucinated(m):
        return False
    if run_loss_change(m).low <= 0:
        return True
    h = read_hallucination(m)
    exact = run_update_ratio(m).high < t.EXACT_ZERO
    return h is not None and (h.attracting or exact or (m.quadratic_error or 0.0) > t.QUADRATIC_FAILS)


def finding(m: Measurements, h: Hallucination, verdict: str, severity: Severity, meaning: str, source: str) -> Finding:
    """The finding with the evidence that both verdicts share."""
    falls = run_loss_change(m).high < 0
    evidence: dict[str, float | int | str | None] = {
        "gradient_norm": m.grad_norm.value,
        "perturbed_gradient_norm": m.perturbed_grad_norm.value,
        "update_ratio": run_update_ratio(m).value,
        "loss_change": run_loss_change(m).value,
    }
    if m.batch_update is not None:  # both, side by side
        evidence |= {
            "batch_samples": m.batch_update.size,
            "batch_gradient_norm": m.batch_update.update_norm.value,
            "full_update_ratio": m.update_ratio.value,
            "full_loss_change": m.loss_change.value,
        }
    evidence |= {
        "ridge_distance": m.ridge_distance.value,
        "perturbation_norm": m.perturbation_norm,
        "jacobian_smallest_real": h.smallest.real if h.smallest is not None else None,
        "jacobian_zero_modes": h.zero_modes,
    }
    if m.largest_multiplier is not None and m.largest_multiplier.known:
        evidence["largest_multiplier"] = m.largest_multiplier.value
    return Finding(
        verdict=verdict,
        severity=severity,
        confidence=_grade(m) if falls or not h.attracting or _surely_survives(m) else Confidence.LOW,
        evidence=evidence,
        message=meaning,
        source=source,
    )


def _surely_survives(m: Measurements) -> bool:
    """Whether the update is exactly zero where the gradient is not: then where x+ lies says nothing."""
    return run_update_ratio(m).high < t.EXACT_ZERO and (m.surviving_gradient or 0.0) >= t.SURVIVES


def _grade(m: Measurements) -> Confidence:
    """High where J is exact (complete spectrum), medium where it is reduced to the ends of H+."""
    return Confidence.HIGH if m.spectrum_complete else Confidence.MEDIUM
