"""What the forecast adds to the linear tests: whether the run stays, and how much more slowly than SGD it leaves."""

from __future__ import annotations

from samdiag.theory.diffusion import escape_steps
from samdiag.types import Measurements

SEED = 1e-6  # of the exit distance: where a direction has no offset at all, the forecast's own start is about as near
HORIZON = 100_000  # steps after which SGD's escape is not waited for


def foreseen(m: Measurements) -> str | None:
    """What full-batch SAM does on the local quadratic, "stays", "leaves" or "open"; None where that says nothing here.

    Forecasts are made only where the real update along the path is the quadratic's (`measure.forecast`).

    Source: theory A5 to A8, by simulation.
    """
    if m.forecast is None or m.variant != "sam" or not m.self_check.passed:
        return None
    return m.forecast.outcome if m.forecast.outcome in ("stays", "leaves", "open") else None


def foreseen_slowdown(m: Measurements) -> float:
    """Steps of the forecast's escape over those of plain steps from the same point, at least 1.

    Plain steps leave along the direction that first carries |q·g| to SAM's exit gradient rho|lam_min|.

    Source: theory D4 without noise.
    """
    assert m.forecast is not None
    lam_min = m.lambda_min.value or 0.0
    if m.step_size is None or lam_min + m.weight_decay >= 0:
        return 1.0
    exit_gradient = m.rho * abs(lam_min) / (1.0 - m.weight_decay / abs(lam_min))
    found = []
    for d in m.bottom_directions:
        lam = d.eigenvalue.value or 0.0
        if lam + m.weight_decay >= 0:
            continue
        distance = exit_gradient / abs(lam)
        steps = escape_steps(
            offset=max(abs(d.offset / lam), SEED * distance),
            noise=0.0,
            exit_distance=distance,
            mu=lam + m.weight_decay,
            lr=m.step_size,
            momentum=m.momentum,
            nesterov=m.nesterov,
            max_steps=HORIZON,
        )
        if steps is not None:
            found.append(steps)
    return max(1.0, m.forecast.steps / max(min(found), 1)) if found else 1.0
