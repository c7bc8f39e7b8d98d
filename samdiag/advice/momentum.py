"""Which momentum restores SGD's pace of escape."""

from __future__ import annotations

from samdiag.advice.situation import Situation
from samdiag.remedies import Advice
from samdiag.theory.prescription import matching_momentum, noise_momentum_cap
from samdiag.theory.saddle import shifted_eigenvalue

SOURCE = "docs/theory.md D3"


def keep(situation: Situation, reason: str) -> Advice:
    """The present momentum."""
    gamma = situation.m.momentum
    return Advice(current=gamma, recommended=gamma, interval=None, binding=None, reason=reason, source=SOURCE)


def silence(situation: Situation, reason: str) -> Advice:
    """No recommendation, and why."""
    return Advice(
        current=situation.m.momentum, recommended=None, interval=None, binding=None, reason=reason, source=SOURCE
    )


def match(situation: Situation, *, radius: float, batch_size: float | None) -> Advice:
    """gamma* under the settings recommended for rho and B, capped by the noise temperature.

    Args:
        situation: the checkpoint.
        radius: effective radius along lambda_min under the recommended rho and batch size.
        batch_size: the recommended one, of the descent; None: full batch, where no noise caps momentum.

    Source: theory D3; momentum never frees a captured direction (A3), it only speeds up a free one.
    """
    m = situation.m
    if situation.bottom is None:
        return silence(situation, "no negative eigenvalue beyond its error: nothing to escape from")
    if m.step_size is None:
        return silence(situation, "the learning rate is not known: give --lr")
    lam = situation.bottom.eigenvalue.value or 0.0
    mu = shifted_eigenvalue(lam, radius, m.weight_decay)
    gamma = matching_momentum(lam, mu, m.step_size, m.momentum, m.weight_decay, nesterov=m.nesterov)
    if gamma is None:
        why = (
            "the direction stays captured, and momentum never frees it"
            if mu >= 0
            else "no momentum below 1 restores SGD's pace"
        )
        return silence(situation, why)
    old = float(m.batch_size) if m.batch_size else batch_size
    noisy = batch_size is not None and old is not None and (m.noise_trace.value or 0.0) > 0
    cap = noise_momentum_cap(m.momentum, batch_size / old if noisy and batch_size and old else 1.0) if noisy else 0.99
    chosen = max(m.momentum, min(gamma, cap)) if gamma >= m.momentum else m.momentum
    capped = gamma > cap
    return Advice(
        current=m.momentum,
        recommended=chosen,
        interval=(m.momentum, max(cap, m.momentum)),
        binding="noise temperature" if capped and noisy else ("0.99" if capped else "escape speed"),
        reason=f"momentum {gamma:.3g} would leave as fast as SGD does now"
        + (f", the dampening kept at {m.dampening:g}" if m.dampening > 0 else "")
        + (f"; capped at {chosen:.3g}" if capped else ""),
        source=SOURCE,
    )
