"""When the learning rate has to change: beyond the edge of stability, or too small to leave anything in time."""

from __future__ import annotations

import math
from dataclasses import replace

from samdiag.advice.situation import Situation
from samdiag.remedies import Advice
from samdiag.theory.edge import bounce_gradient
from samdiag.theory.prescription import edge_lr, releasing_lr
from samdiag.theory.saddle import captured_while_bouncing
from samdiag.types import Direction
from samdiag.verdicts.thresholds import USABLE_EDGE

EDGE_SOURCE = "docs/theory.md A1, A9"
EDGE_MARGIN = 0.9  # of the edge: curvature goes on rising for a while where it is below it (progressive sharpening)


def below_edge(situation: Situation) -> Advice | None:
    """The largest learning rate below the edge of stability, EDGE_MARGIN of it; None where lr is unknown or below it.

    USAM: SAM's own edge, at mu = lam(1 + rho·lam). Variants that normalise are thrown away only beyond plain gradient
    descent's edge; between their own edge and that one they bounce, and no wider than rho up to half of it (A9). So
    their own edge is taken where it costs at most half of the learning rate, else that half.

    Source: theory A1, A9.
    """
    m = situation.m
    if m.step_size is None or m.lr is None:
        return None
    plain, own = edges(situation)
    limit = own if m.variant == "usam" else max(own, plain / 2.0)
    lr = EDGE_MARGIN * limit / (1.0 - m.dampening)
    if not 0 < lr < m.lr:
        return None
    whole, half = plain / (1.0 - m.dampening), own / (1.0 - m.dampening)
    bounce = (
        "" if m.variant == "usam" or own >= limit else "; in between it bounces across the valley, no wider than rho"
    )
    return Advice(
        current=m.lr,
        recommended=lr,
        interval=(0.0, whole if m.variant != "usam" else half),
        binding="edge of stability",
        reason=f"plain steps are stable below {whole:.3g} and SAM at this rho below {half:.3g}: {EDGE_MARGIN:g} of "
        f"{limit / (1.0 - m.dampening):.3g}{bounce}",
        source=EDGE_SOURCE,
    )


def edges(situation: Situation) -> tuple[float, float]:
    """Largest stable eta of plain gradient descent, and of SAM at its present rho_eff, over every eigenvalue found.

    Each eigenvalue is taken at the upper end of its error bar.

    Source: theory A1.
    """
    m = situation.m
    top = Direction(eigenvalue=m.lambda_max, effective_radius=m.effective_radius)
    plain = own = math.inf
    for d in (top, *m.top_directions, *m.bottom_directions):
        lam = d.eigenvalue.high if math.isfinite(d.eigenvalue.high) else d.eigenvalue.value
        if lam is not None:
            plain = min(plain, edge_lr(lam, m.momentum, 0.0, m.weight_decay, nesterov=m.nesterov))
            own = min(own, edge_lr(lam, m.momentum, d.effective_radius, m.weight_decay, nesterov=m.nesterov))
    return plain, own


def releasing(situation: Situation) -> float | None:
    """The learning rate below which the bounce along lambda_max holds the saddle at every rho; None elsewhere.

    Full-batch SAM and GSAM whose gradient is the bounce's. Learning-rate decay makes such traps. It is not recommended
    to go there: on 8×8 digits, 2.6 in place of 0.2 threw a run that plain steps had freed from 0.25 back to 30, because
    the place that they went to was sharper than the saddle.

    Source: theory A6.
    """
    m, bottom = situation.m, situation.bottom
    lam_max = m.lambda_max.value or 0.0
    full = m.variant in ("sam", "gsam") and m.batch_size is None and m.ascent_noise == 0
    if bottom is None or not full or m.step_size is None or lam_max <= 0:
        return None
    lam = bottom.eigenvalue.value or 0.0
    swing = bounce_gradient(lam_max, m.rho, m.step_size, m.momentum, nesterov=m.nesterov)
    held = captured_while_bouncing(lam, lam_max, m.step_size, m.momentum, nesterov=m.nesterov)
    if not held or swing < 0.5 * (m.grad_norm.value or 0.0):  # else it is not the bounce that divides rho
        return None
    return releasing_lr(lam, lam_max, m.momentum, nesterov=m.nesterov) / (1.0 - m.dampening)


def usable(situation: Situation) -> Advice | None:
    """A modest learning rate, where the present one is so small that even plain steps would not leave in time.

    USABLE_EDGE of the edge 2/|lambda|, as the verdicts weigh it. None where the present one is as large.

    Source: theory A1, D6 (N_escape > N).
    """
    m = situation.m
    lam = max(m.lambda_max.value or 0.0, abs(m.lambda_min.value or 0.0))
    if m.step_size is None or m.lr is None or lam <= 0:
        return None
    lr = USABLE_EDGE * 2.0 / lam / (1.0 - m.dampening)
    if not m.lr < lr < math.inf:
        return None
    return Advice(
        current=m.lr,
        recommended=lr,
        interval=(m.lr, lr / USABLE_EDGE),
        binding=None,
        reason=f"at {m.lr:.3g} not even plain steps leave in time: {100 * USABLE_EDGE:g} % of the edge of stability",
        source="docs/theory.md A1, D6",
    )


def at_lr(situation: Situation, lr: float) -> Situation:
    """The same checkpoint with another learning rate, nothing else changed."""
    return Situation.of(replace(situation.m, lr=lr))
