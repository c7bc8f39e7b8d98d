"""Nothing is wrong: SAM goes down."""

from __future__ import annotations

from samdiag.theory.cycles import bounce_cycles
from samdiag.theory.edge import bounce_gradient, stability_edge
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.cut_short import may_hide_instability, may_hide_saddle, why_cut
from samdiag.verdicts.reading import (
    decay_outweighs,
    is_near_saddle,
    is_stalled,
    lowers_loss,
    progress,
    run_gradient_ratio,
    run_loss_change,
    shown,
)
from samdiag.verdicts.unstable import edge_position

STRAIGHT = 0.9  # cosine of g and g+: what SAM adds hardly turns the step


def _swings_past(m: Measurements) -> bool:
    """Whether a trial that ends higher only swings: stable along every direction, above SAM's own cycles, and convex or
    straight downhill far from the saddle (what the trial compares is its middle with its end).

    Source: theory A1, A9.
    """
    position = edge_position(m)
    stable = position is not None and position[2] < stability_edge(m.momentum, nesterov=m.nesterov)
    above = m.variant == "usam" or (m.grad_norm.value or 0.0) > _cycle_gradient(m)
    downhill = m.lambda_min.low > 0 or (m.gradient_cosine.low > STRAIGHT and not is_near_saddle(m))
    return m.momentum > 0 and stable and above and downhill


def _cycle_gradient(m: Measurements) -> float:
    """Largest |g| on a cycle of normalised SAM along lambda_max; 0 without lr or a positive lambda_max.

    Source: theory A9, longer cycles.
    """
    lam = m.lambda_max.value
    if m.step_size is None or lam is None or lam <= 0:
        return 0.0
    cycles = bounce_cycles(lam, m.rho, m.step_size, m.momentum, nesterov=m.nesterov)
    reach = lam * max((cycle.amplitude for cycle in cycles), default=0.0)
    # asymmetric cycles, which Nesterov has, are not among those: at most three times the bounce
    bounce = bounce_gradient(lam, m.rho, m.step_size, m.momentum, nesterov=m.nesterov)
    return max(reach, 3.0 * bounce) if m.nesterov else reach


def _starts_below_bounce(m: Measurements) -> bool:
    """Whether full-batch SAM with momentum stands below its own cycles: the trial's trend then leaves out a first rise.

    Source: theory A9, longer cycles.
    """
    full = m.variant == "sam" and m.batch_size is None and m.ascent_batch is None
    uphill = m.gradient_ratio.low > 1.0 and m.loss_change.low > 0
    return full and m.momentum > 0 and uphill and (m.grad_norm.value or 0.0) < _cycle_gradient(m)


def judge(m: Measurements) -> Finding | None:
    """`descending`: the next steps lower the loss (with lr), or the shifted gradient points uphill as the gradient
    does (without).

    Source: theory F; the descent lemma, f(x − eta·g+) ≈ f − eta·g·g+.
    """
    down = lowers_loss(m)
    swings = down is False and _swings_past(m)
    if is_stalled(m) or m.gradient_cosine.value is None or (down is False and not swings):
        return None
    if decay_outweighs(m) and (m.lambda_min.value or 0.0) < 0:
        return None  # the decay climbs, and a trial that ends lower only swings
    if (m.gradient_cosine.low if down is None else m.gradient_cosine.value) <= 0:
        return None
    share = progress(m)
    pace = (
        f"; at this pace {100 * share:.0f} % of the remaining loss within {t.HORIZON} steps"
        if share is not None and share < 1
        else ""
    )
    doubt = " Momentum carries it past the bottom and back: the trial of the next steps ends higher." if swings else ""
    if m.lr is None and (run_gradient_ratio(m).value or 0.0) > t.BOUNCE_RATIO and (run_loss_change(m).value or 0.0) > 0:
        doubt = " Without lr a bounce cannot be told from a descent here: give --lr."
    if _starts_below_bounce(m):
        doubt = (
            " It lies closer to the valley floor than SAM's own cycles along lambda_max reach: the run may first climb."
        )
    if m.grad_norm.low <= 0 < (m.grad_norm.sampling_error or 0.0):
        doubt = doubt or " The gradient of these samples cannot be told from sampling noise: use more --samples."
    if may_hide_saddle(m) or may_hide_instability(m):
        doubt = doubt or f" What the ends of the spectrum say against it is not known: {why_cut(m)}."
    return Finding(
        verdict="descending",
        severity=Severity.INFO,
        confidence=Confidence.LOW if doubt else (Confidence.MEDIUM if down is None else Confidence.HIGH),
        evidence={
            "gradient_cosine": m.gradient_cosine.value,
            "gradient_ratio": m.gradient_ratio.value,
            "loss": m.loss.value,
            "lookahead_loss": m.lookahead_loss,
            "progress_share": None if share is None else min(share, 1.0),
        },
        message=f"SAM's step goes downhill (cosine with the gradient {shown(m.gradient_cosine.value)}){pace}.{doubt}",
        source="descent lemma; docs/theory.md F",
    )
