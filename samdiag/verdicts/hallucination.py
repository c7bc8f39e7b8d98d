"""What both hallucination verdicts look at: the vanishing shifted gradient and the SAM Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

from samdiag.theory.hallucination import is_attracting
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts.reading import is_downhill_hallucination, is_hallucination_candidate


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
    attracting, modes = is_attracting(values, zero, m.lr, m.momentum)
    if attracting and not is_downhill_hallucination(m):
        return None
    live = [v for v in values if abs(v) > zero]
    return Hallucination(
        attracting=attracting, zero_modes=modes, smallest=min(live, key=lambda v: v.real) if live else None
    )


def finding(m: Measurements, h: Hallucination, verdict: str, severity: Severity, meaning: str, source: str) -> Finding:
    """The finding with the evidence that both verdicts share."""
    falls = m.loss_change.high < 0
    return Finding(
        verdict=verdict,
        severity=severity,
        confidence=_grade(m) if falls or not h.attracting else Confidence.LOW,
        evidence={
            "gradient_norm": m.grad_norm.value,
            "perturbed_gradient_norm": m.perturbed_grad_norm.value,
            "update_ratio": m.update_ratio.value,
            "loss_change": m.loss_change.value,
            "ridge_distance": m.ridge_distance.value,
            "perturbation_norm": m.perturbation_norm,
            "jacobian_smallest_real": h.smallest.real if h.smallest is not None else None,
            "jacobian_zero_modes": h.zero_modes,
        },
        message=meaning,
        source=source,
    )


def _grade(m: Measurements) -> Confidence:
    """High where J is exact (complete spectrum), medium where it is reduced to the ends of H+."""
    return Confidence.HIGH if m.spectrum_complete else Confidence.MEDIUM
