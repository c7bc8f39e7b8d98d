"""How large rho may be."""

from __future__ import annotations

from samdiag.advice.situation import Situation
from samdiag.remedies import Advice

SOURCE = "docs/theory.md D1"
OFF = 0.01  # of the present rho: below this SAM is hardly SAM any more
DECAY = 0.1  # of rho and with it of the bounce or the floor: an order of magnitude, then a new look


def keep(situation: Situation, reason: str) -> Advice:
    """The present rho, with the interval that the ridge certifies."""
    m = situation.m
    ridge = situation.ridge_rho
    limit = ridge if ridge is not None and ridge >= m.rho else None
    return Advice(
        current=m.rho,
        recommended=m.rho,
        interval=(0.0, limit) if limit else None,
        binding="ridge" if limit else None,
        reason=reason,
        source=SOURCE,
    )


def silence(situation: Situation, reason: str) -> Advice:
    """No recommendation, and why."""
    return Advice(current=situation.m.rho, recommended=None, interval=None, binding=None, reason=reason, source=SOURCE)


def shrink(situation: Situation, why: str) -> Advice:
    """The largest rho that satisfies every bound; the tightest is the binding one.

    Source: theory D1.
    """
    bounds = situation.rho_bounds()
    if not bounds:
        return silence(situation, "nothing measured bounds rho from above")
    limit, name = bounds[0]
    if limit <= 0:
        return silence(situation, _impossible(situation, name))
    if limit < OFF * situation.m.rho:
        why += "; in effect switch SAM off until it has left"
    others = ", ".join(f"{n} ≤ {v:.3g}" for v, n in bounds[1:])
    return Advice(
        current=situation.m.rho,
        recommended=min(limit, situation.m.rho),
        interval=(0.0, limit),
        binding=name,
        reason=f"{why}: {name} allows rho ≤ {limit:.3g}" + (f" (others: {others})" if others else ""),
        source=SOURCE,
    )


def decay(situation: Situation, binding: str, reason: str, *, first: float | None = None) -> Advice:
    """Where the decay of rho ends: DECAY of `first`, by default the present one."""
    m = situation.m
    return Advice(
        current=m.rho,
        recommended=DECAY * (m.rho if first is None else first),
        interval=(0.0, m.rho),
        binding=binding,
        reason=reason,
        source=SOURCE,
    )


def _impossible(situation: Situation, name: str) -> str:
    if name == "saddle trap" and (situation.m.grad_norm.value or 0.0) > 0:
        return (
            "neither noise nor an offset along the escape direction: its gradient is zero, so every rho captures it; "
            "switch to SGD or USAM for a while, or add gradient noise with smaller batches"
        )
    if name == "saddle trap":
        return (
            "full-batch SAM exactly at a critical point is captured for every rho: switch to SGD or USAM for a while, "
            "or add gradient noise with smaller batches"
        )
    if name == "edge of stability":
        return "the learning rate alone is beyond the edge of stability: lower it first"
    return "the ridge lies at this very point"
