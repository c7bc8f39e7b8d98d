"""Measurements → evidence rows: the numbers in reading order, each with the one remark that makes it readable."""

from __future__ import annotations

import math

from samdiag.reports.escape import printable
from samdiag.reports.numbers import NOT_MEASURED, estimate, estimate_line, number
from samdiag.reports.rows import EvidenceRow
from samdiag.theory.edge import stability_edge
from samdiag.types import Estimate, Measurements
from samdiag.verdicts.thresholds import BOUNCE_RATIO, HALLUCINATION_RATIO

NOTABLE_BIAS = 0.1  # of half the half-width: a smaller shift is not worth a remark


def evidence_rows(m: Measurements) -> tuple[EvidenceRow, ...]:
    """All rows of the evidence table; what was not asked for (weight decay, second opinion) has no row."""
    return tuple(_gradient_rows(m) + _batch_rows(m) + _curvature_rows(m) + _trust_rows(m))


def everything_seen(m: Measurements) -> bool:
    """True when the whole training set was analysed, so that there is no sampling error by construction."""
    return m.population is not None and m.num_samples >= m.population


def _gradient_rows(m: Measurements) -> list[EvidenceRow]:
    rows = [
        _row(m, "loss f(x)", m.loss),
        _row(m, "loss at SAM's point f(x+)", m.perturbed_loss, _change_note(m.loss_change)),
        _row(m, "gradient ‖g‖", m.grad_norm),
        _row(m, "SAM's gradient ‖g+‖", m.perturbed_grad_norm),
        _row(m, "ratio ‖g+‖ / ‖g‖", m.gradient_ratio, _ratio_note(m.gradient_ratio)),
        _row(m, "cosine of the two", m.gradient_cosine, "they point apart" if m.gradient_cosine.high < 0 else ""),
        _ridge_row(m),
    ]
    if m.weight_decay:
        rows.insert(5, _row(m, "ratio with weight decay", m.update_ratio, _ratio_note(m.update_ratio)))
    if m.lookahead_loss is not None:
        note = "" if m.lookahead_loss_sgd is None else f"plain SGD: {number(m.lookahead_loss_sgd)}"
        rows.append(
            EvidenceRow(label=f"loss after {m.lookahead_steps} steps", value=number(m.lookahead_loss), note=note)
        )
    return rows


def _batch_rows(m: Measurements) -> list[EvidenceRow]:
    """The update that mini-batch SAM really makes, beside that of all samples together."""
    b = m.batch_update
    if b is None:
        return []
    kind = f"m-SAM ({b.size})"
    return [
        _row(m, f"{kind}: loss change", b.loss_change, f"mean over {b.num_batches} batches; above: one ascent for all"),
        _row(m, f"{kind}: ‖E g_b+‖", b.update_norm),
        _row(m, f"{kind}: ratio to ‖g‖", b.gradient_ratio, _ratio_note(b.gradient_ratio)),
        _row(m, f"{kind}: cosine with g", b.gradient_cosine),
        _row(m, f"{kind}: mean ‖g_b‖", b.grad_scale),
    ]


def _curvature_rows(m: Measurements) -> list[EvidenceRow]:
    limit = stability_edge(m.momentum, nesterov=m.nesterov)
    edge = f"SGD's step edge: {number(limit / m.step_size)}" if m.step_size else ""
    bound = ""
    if m.lambda_min_bound is not None:
        whose = "" if everything_seen(m) or m.num_samples == 1 else " on these samples"  # one: a loss without data
        chance = number(m.lambda_min_bound_probability)
        bound = f"> {number(m.lambda_min_bound)} with probability {chance}{whose}"
    rows = [
        _row(m, "largest eigenvalue λ_max", m.lambda_max, _joined(_own_value(m.lambda_max), edge)),
        _row(m, "smallest eigenvalue λ_min", m.lambda_min, _joined(_own_value(m.lambda_min), bound)),
        EvidenceRow(label="effective radius ρ_eff", value=number(m.effective_radius), note=_radius_note(m)),
    ]
    if m.largest_multiplier is not None:
        rows.append(_row(m, "largest multiplier of SAM's step", m.largest_multiplier, _multiplier_note(m)))
    if m.noise_trace.known:
        rows.append(_row(m, "gradient noise tr C", m.noise_trace))
    return rows


def _trust_rows(m: Measurements) -> list[EvidenceRow]:
    rows = []
    if m.quadratic_error is not None:
        note = "of the change in gradient"
        rows.append(EvidenceRow(label="second-order error", value=number(m.quadratic_error, digits=2), note=note))
    if not m.self_check.passed:
        rows.append(EvidenceRow(label="Hessian self-check", value="FAILED", note=printable(m.self_check.reason)))
    opinion = m.second_opinion
    if opinion is not None:
        agreement = {True: "agrees", False: "DISAGREES", None: "no comparison"}
        note = f"λ_max {agreement[opinion.lambda_max_agrees]}, trace {agreement[opinion.trace_agrees]}"
        remark = printable(opinion.message)
        rows.append(
            EvidenceRow(
                label="λ_max by PyHessian",
                value=number(opinion.lambda_max),
                note=f"{note}; {remark}" if remark else note,
            )
        )
    return rows


def _row(m: Measurements, label: str, measured: Estimate, note: str = "") -> EvidenceRow:
    value, error = estimate(measured)
    unknown = measured.known and measured.sampling_error is None and not everything_seen(m)
    if measured.known and not measured.converged:
        note = f"not converged; {note}" if note else "not converged"
    return EvidenceRow(label=label, value=value, error=error, note=note, sampling_unknown=unknown)


def _ridge_row(m: Measurements) -> EvidenceRow:
    label = "ridge distance s*"
    if not m.ridge_distance.known:
        searched = m.ridge_searched
        note = f"none within {number(searched)} uphill" if searched > 0 else ""
        return EvidenceRow(label=label, value="none found" if searched > 0 else NOT_MEASURED, note=note)
    if m.rho < m.ridge_distance.low:
        return _row(m, label, m.ridge_distance, f"rho {number(m.rho)} stays short of it")
    reach = "reaches past it" if m.rho > m.ridge_distance.high else "is at it within error"
    return _row(m, label, m.ridge_distance, f"rho {number(m.rho)} {reach}")


def _own_value(end: Estimate) -> str:
    """What the samples by themselves say, where the row's value has their bias taken off."""
    if not end.known or not end.bias or not end.sampling_error or abs(end.bias) < NOTABLE_BIAS * end.sampling_error:
        return ""
    return f"{number(end.in_sample.value)} by these samples alone"


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _change_note(change: Estimate) -> str:
    if not change.known:
        return ""
    return f"change {estimate_line(change)}" + (": the ascent step went down" if change.high < 0 else "")


def _ratio_note(ratio: Estimate) -> str:
    if not ratio.known:
        return ""
    if ratio.high < HALLUCINATION_RATIO:
        return f"below {HALLUCINATION_RATIO}: what SAM follows has vanished"
    return (
        f"above {number(BOUNCE_RATIO)}: a bounce, or closer to the valley than rho" if ratio.low > BOUNCE_RATIO else ""
    )


def _multiplier_note(m: Measurements) -> str:
    """What the multiplier says about the linearised iteration here; zero modes aside."""
    assert m.largest_multiplier is not None
    modes = sum(math.hypot(*pair) <= (m.jacobian_zero or 0.0) for pair in m.jacobian_eigenvalues or ())
    neutral = f"; {modes} neutral direction(s) left out" if modes else ""
    if m.largest_multiplier.low > 1:
        return f"above 1: nearby runs part{neutral}"
    return (f"below 1: nearby runs come together{neutral}") if m.largest_multiplier.high < 1 else neutral.lstrip("; ")


def _radius_note(m: Measurements) -> str:
    if math.isinf(m.effective_radius):
        return "reverses every negative λ"
    if not m.effective_radius > 0:
        return ""
    return f"reverses λ < {number(-1 / m.effective_radius)}"
