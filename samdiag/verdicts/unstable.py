"""The step is too large for the curvature: the iteration leaves whatever it is near."""

from __future__ import annotations

from samdiag.theory.edge import stability_edge
from samdiag.theory.saddle import shifted_eigenvalue
from samdiag.types import Confidence, Direction, Finding, Measurements, Severity


def edge_position(m: Measurements) -> tuple[float, float, float] | None:
    """(lowest, value, highest) eta·mu that the error bars of the worst direction allow; None without lr.

    USAM: mu = lam(1 + rho·lam). Normalised variants: mu = lam, because their perturbation only makes them bounce, on a
    finite cycle (A9); what diverges is what plain gradient descent diverges on.

    Source: theory A1, A9.
    """
    if m.lr is None:
        return None
    worst = None
    for d in (*m.top_directions, *m.bottom_directions):
        e = d.eigenvalue
        low, high = sorted((_mu(m, d, e.low), _mu(m, d, e.high)))
        value = _mu(m, d, e.value or 0.0)
        if worst is None or value > worst[1]:
            worst = (low, value, high)
    if worst is None:
        return None
    return m.lr * worst[0], m.lr * worst[1], m.lr * worst[2]


def _mu(m: Measurements, d: Direction, lam: float) -> float:
    radius = d.effective_radius if m.variant == "usam" else 0.0
    return shifted_eigenvalue(lam, radius, m.weight_decay)


def judge(m: Measurements) -> Finding | None:
    """`unstable` when eta·mu exceeds 2(1+gamma) beyond its error bars.

    Source: theory A1; KIM Thm 1 (upper end of the window).
    """
    position = edge_position(m)
    edge = stability_edge(m.momentum)
    if position is None or not m.self_check.passed or position[0] <= edge:
        return None
    return Finding(
        verdict="unstable",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        evidence={
            "lr_times_curvature": position[1],
            "stability_edge": edge,
            "lambda_max": m.lambda_max.value,
            "lr": m.lr,
            "momentum": m.momentum,
        },
        message=(
            f"lr × curvature = {position[1]:.3g} exceeds the stability edge 2(1+momentum) = {edge:.3g}: "
            "the iteration is thrown away from this point along the sharpest direction."
        ),
        source="KIM (arXiv 2301.06308) Thm 1, upper end; classical heavy-ball stability, docs/theory.md A1",
    )
