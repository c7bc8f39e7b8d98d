"""Constant rho stops SAM short of the optimum."""

from __future__ import annotations

import math

from samdiag.theory.floor import convergence_floor
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.bounce import is_bouncing
from samdiag.verdicts.capture import read_capture
from samdiag.verdicts.cut_short import may_hide_saddle
from samdiag.verdicts.foresight import foreseen
from samdiag.verdicts.reading import (
    is_critical,
    is_hallucination_candidate,
    is_small_loss,
    lowers_loss,
    progress,
    shown,
)


def judge(m: Measurements) -> Finding | None:
    """`convergence-floor`: |g| ≤ beta·rho, SAM's next steps gain nothing, and plain gradient steps would.

    |g| ≤ beta·rho alone holds near every minimum and is no failure; a bounce and a capture have verdicts of their own.
    Where error bars leave a capture or a vanishing gradient open, that the run is stuck and why rho must fall is not.

    Source: SI (arXiv 2306.09850), constant rho [recalled]; theory D.
    """
    lam = m.lambda_max.value
    if (
        m.variant == "usam"
        or not m.self_check.passed
        or lam is None
        or m.loss.value is None
        or m.lookahead_loss_sgd is None
        or is_critical(m)
        or is_small_loss(m)
        or is_hallucination_candidate(m)
        or is_bouncing(m)
        or foreseen(m) in ("leaves", "open")
        or read_capture(m).captured
        or may_hide_saddle(m)
    ):
        return None
    floor = convergence_floor(m.rho, lam) * t.FLOOR_SLACK
    if m.grad_norm.high > floor or not _only_sam_is_stuck(m):
        return None
    return Finding(
        verdict="convergence-floor",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        evidence={
            "gradient_norm": m.grad_norm.value,
            "floor": floor,
            "lambda_max": lam,
            "lookahead_loss": m.lookahead_loss,
            "lookahead_loss_sgd": m.lookahead_loss_sgd,
            "loss": m.loss.value,
        },
        message=(
            f"|g| = {shown(m.grad_norm.value)} is below lambda_max·rho = {floor:.3g}, where SAM with constant rho "
            "is not guaranteed to go on, and it "
            "does not: plain gradient steps lower the loss, SAM's do not. More steps at this rho do not help; "
            "rho must decay."
        ),
        source="SI (arXiv 2306.09850), convergence with constant rho; docs/theory.md D",
    )


def _only_sam_is_stuck(m: Measurements) -> bool:
    """SAM's next steps gain nothing, or nothing that counts within HORIZON; plain steps gain more than rounding."""
    assert m.loss.value is not None
    assert m.lookahead_loss_sgd is not None
    gain = m.loss.value - m.lookahead_loss_sgd
    per_step = gain / m.lookahead_steps
    if gain <= max(m.loss_change.error, 1e-12 * abs(m.loss.value)):
        return False
    if m.lookahead_loss is not None:
        better = m.lookahead_loss - m.lookahead_loss_sgd
        if better <= 2.0 * math.hypot(m.lookahead_error, m.lookahead_error_sgd):
            return False  # within the noise of the two trials
    share = progress(m)
    if share is None or m.loss_lower_bound is None:
        return lowers_loss(m) is False
    sgd = per_step * t.HORIZON / (m.loss.value - m.loss_lower_bound)
    return share < t.PROGRESS <= sgd
