"""The step is too large for the curvature: the iteration leaves whatever it is near."""

from __future__ import annotations

from samdiag.theory.edge import stability_edge
from samdiag.theory.saddle import mu_range, shifted_eigenvalue
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts.reading import goes_on_falling, lowers_loss, was_cut


def edge_position(m: Measurements) -> tuple[float, float, float] | None:
    """eta·mu over all directions: the largest lower end of an error bar, the largest value, the largest upper end.

    eta is lr(1 − dampening). The first above the edge is instability for certain; the last above it leaves it open.
    USAM: mu = lam(1 + rho·lam). Normalised variants: mu = lam, because their perturbation only makes them bounce, on a
    finite cycle (A9); what diverges is what plain gradient descent diverges on. None without lr. The wide bar of a
    lambda_min that was cut short ends at lambda_max's.

    Source: theory A1, A9.
    """
    if m.step_size is None:
        return None
    bars = []
    for d in (*m.top_directions, *m.bottom_directions):
        radius = d.effective_radius if m.variant == "usam" else 0.0
        most = min(d.eigenvalue.high, m.lambda_max.high) if was_cut(m) else d.eigenvalue.high
        if radius > 0:
            low, high = mu_range(d.eigenvalue.low, most, radius, m.weight_decay)
        else:  # a sum: 0·∞ has no value where an end is unknown
            low, high = d.eigenvalue.low + m.weight_decay, most + m.weight_decay
        bars.append((low, shifted_eigenvalue(d.eigenvalue.value or 0.0, radius, m.weight_decay), high))
    if not bars:
        return None
    lows, values, highs = zip(*bars, strict=True)
    return m.step_size * max(lows), m.step_size * max(values), m.step_size * max(highs)


def judge(m: Measurements) -> Finding | None:
    """`unstable` when eta·mu exceeds 2(1+gamma), Nesterov 2(1+gamma)/(1+2gamma), beyond its error bars.

    A loss with higher derivatives may send the run to a flatter place instead: not where a long trial of the real
    update shows the loss to go on falling.

    Source: theory A1; KIM Thm 1 (upper end of the window).
    """
    position = edge_position(m)
    edge = stability_edge(m.momentum, nesterov=m.nesterov)
    if position is None or not m.self_check.passed or position[0] <= edge or goes_on_falling(m):
        return None
    passing = lowers_loss(m) is True or m.batch_norm  # a transient, or not training's curvature
    return Finding(
        verdict="unstable",
        severity=Severity.WARNING if passing else Severity.ERROR,
        confidence=Confidence.MEDIUM if passing else Confidence.HIGH,
        evidence={
            "lr_times_curvature": position[1],
            "stability_edge": edge,
            "lambda_max": m.lambda_max.value,
            "lr": m.lr,
            "momentum": m.momentum,
        },
        message=(
            f"lr × curvature = {position[1]:.3g} exceeds the stability edge "
            f"{'2(1+momentum)/(1+2·momentum)' if m.nesterov else '2(1+momentum)'} = {edge:.3g}: "
            "the iteration is thrown away from this point along the sharpest direction"
            + (", although its next steps may still lower the loss." if passing else ".")
        ),
        source="KIM (arXiv 2301.06308) Thm 1, upper end; classical heavy-ball stability, docs/theory.md A1",
    )
