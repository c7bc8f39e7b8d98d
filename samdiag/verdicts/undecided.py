"""What stands in the way of a verdict, said plainly."""

from __future__ import annotations

from samdiag.theory.edge import stability_edge
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.capture import Fate, read_capture
from samdiag.verdicts.cut_short import TODO, cut_reasons, why_cut
from samdiag.verdicts.hallucination import outranks_saddle
from samdiag.verdicts.reading import (
    decay_outweighs,
    is_critical,
    is_hallucination_candidate,
    is_near_saddle,
    is_small_loss,
    leaving_is_worth_it,
    run_batches,
    run_update_ratio,
    shown,
    was_cut,
)
from samdiag.verdicts.sample_size import samples_that_decide
from samdiag.verdicts.unstable import edge_position


def judge(m: Measurements) -> Finding | None:
    """`undecided` with every reason that applies: marginal, degenerate, not converged, or products that fail their
    check.

    Source: theory F5.
    """
    reasons = _reasons(m)
    if not reasons:
        return None
    return _finding(m, reasons, samples_that_decide(m, lambda other: bool(_reasons(other))))


def fallback(m: Measurements) -> Finding:
    """The finding when no verdict holds: neither progress nor a reason for its absence."""
    return _finding(
        m,
        [_unexplained(m) + ("" if m.lr is not None else "; --lr would allow more tests")],
    )


def _unexplained(m: Measurements) -> str:
    """What is seen, where no finding holds."""
    plain = m.lookahead_loss_sgd is not None and m.loss.value is not None and m.lookahead_loss_sgd > m.loss.value
    if decay_outweighs(m) or (plain and m.weight_decay > 0):
        return (
            f"weight decay {m.weight_decay:.3g}, which is not part of the loss, moves the weights more than the "
            "gradient does, in plain steps as well"
        )
    position, edge = edge_position(m), stability_edge(m.momentum, nesterov=m.nesterov)
    if position is not None and abs(position[1] / edge - 1.0) <= t.MARGIN_NORMALISED:
        return (
            f"the step is within {100 * t.MARGIN_NORMALISED:.0f} % of the edge of stability, lr × curvature = "
            f"{position[1]:.4g} against {edge:.3g}, and its next steps raise the loss"
        )
    if was_cut(m):
        return f"{why_cut(m)} before the ends of the spectrum were known, and no test decides without them; {TODO}"
    return (
        "no test decides: SAM's next steps do not lower the loss, and neither a saddle, a bounce, nor a hallucinated "
        "point explains it"
    )


def _finding(m: Measurements, reasons: list[str], samples: int | None = None) -> Finding:
    said = reasons if samples is None else [*reasons, _samples_said(m, samples)]
    return Finding(
        verdict="undecided",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        evidence={
            "gradient_norm": m.grad_norm.value,
            "lambda_min": m.lambda_min.value,
            "lambda_min_error": m.lambda_min.spread(),
            "lambda_max": m.lambda_max.value,
            "effective_radius": m.effective_radius,
            **({} if samples is None else {"samples_needed": samples}),
        },
        message="; ".join(said) + ".",
        source="docs/theory.md F5: a threshold inside an error bar decides nothing",
    )


def _samples_said(m: Measurements, samples: int) -> str:
    """What to ask for, in words."""
    everything = m.population is not None and samples >= m.population
    return f"{'all' if everything else 'about'} {samples} samples would decide it: --samples {samples}"


def _reasons(m: Measurements) -> list[str]:
    found: list[str] = []
    if not m.self_check.passed:
        found.append(f"the Hessian products failed their self-check: {m.self_check.reason}")
    if is_hallucination_candidate(m) is None:
        found.append(
            f"the shifted gradient may or may not vanish{run_batches(m)}: ratio {shown(run_update_ratio(m).value)} ± "
            f"{run_update_ratio(m).spread():.2g} against "
            f"{t.HALLUCINATION_RATIO}"
        )
    if m.self_check.passed:
        found.extend(cut_reasons(m) or [*_saddle_reasons(m), *_edge_reasons(m)])
    return found


def _saddle_reasons(m: Measurements) -> list[str]:
    if outranks_saddle(m) or not leaving_is_worth_it(m):
        return []
    capture = read_capture(m)
    if was_cut(m) and capture.sign_uncertain:
        return []  # judged by what the bound leaves open
    if is_critical(m) and capture.sign_uncertain and not is_small_loss(m):
        if m.spectrum_complete or m.lambda_max.low <= 0:
            return [
                "the critical point is degenerate: an eigenvalue is 0 within its error "
                f"({shown(m.lambda_min.value, 2)} ± {m.lambda_min.spread():.1g}), "
                "so the second-order test is silent"
            ]
        return []
    if capture.negatives and not capture.decided and (is_critical(m) or is_near_saddle(m)):
        marginal = next(n for n in capture.negatives if n.fate is Fate.MARGINAL)
        e = marginal.direction.eigenvalue
        return [f"capture is open along lambda = {shown(e.value)} ± {e.spread():.1g}: {marginal.doubt}"]
    radius = m.bottom_directions[0].effective_radius if m.bottom_directions else m.effective_radius
    reach = radius * abs(min(m.lambda_min.low, 0.0))  # rho_eff|lambda_min| at the end of the error bar
    resolved = m.lambda_min.converged and not is_near_saddle(m)
    if capture.sign_uncertain and not is_critical(m) and reach > 1.0 and not resolved:
        return [
            f"lambda_min = {shown(m.lambda_min.value)} ± {m.lambda_min.spread():.2g} may be negative enough to capture "
            f"SAM or not{'' if m.lambda_min.converged else '; a smaller --tol would tell more'}"
        ]
    return []


def _edge_reasons(m: Measurements) -> list[str]:
    position, edge = edge_position(m), stability_edge(m.momentum, nesterov=m.nesterov)
    if position is None or not is_critical(m) or not position[0] <= edge <= position[2]:
        return []
    return [f"the step sits on the edge of stability: lr × curvature = {position[1]:.4g} against {edge:.3g}"]
