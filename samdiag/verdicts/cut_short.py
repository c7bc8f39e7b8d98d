"""What a spectrum that was cut short may hide: products, time or patience ran out before its ends were known."""

from __future__ import annotations

import dataclasses

from samdiag.theory.edge import stability_edge
from samdiag.types import Estimate, Measurements
from samdiag.verdicts.capture import read_capture
from samdiag.verdicts.hallucination import outranks_saddle
from samdiag.verdicts.reading import (
    is_hallucination_candidate,
    is_near_saddle,
    leaving_is_worth_it,
    shown,
    was_cut,
)
from samdiag.verdicts.unstable import edge_position

REASONS = {
    "products": "the limit of products was reached",
    "time limit": "time ran out",
    "interrupted": "the solver was interrupted",
}
TODO = "give --time-limit or --max-products more"


def why_cut(m: Measurements) -> str:
    """What ended the solver, in words."""
    stopped = m.solver.stopped if m.solver is not None else "products"
    return REASONS.get(stopped, f"the solver stopped ({stopped})")


def may_hide_saddle(m: Measurements) -> bool:
    """Whether a saddle that matters lies between lambda_min's value and the bound below it, for all that is known.

    Looked at with the lowest eigenvalue at that bound and the highest at either end of its bar: nearness and what
    leaving is worth grow with |lambda_min|.
    """
    if not was_cut(m) or outranks_saddle(m):
        return False
    capture = read_capture(m)
    if m.lambda_min.low + m.weight_decay >= 0 or (capture.negatives and capture.decided):
        return False
    lowest = Estimate(value=m.lambda_min.low)
    worst = (
        dataclasses.replace(m, lambda_min=lowest, lambda_max=Estimate(value=top))
        for top in (m.lambda_max.value, m.lambda_max.high)
    )
    return any(is_near_saddle(one) and leaving_is_worth_it(one) for one in worst)


def may_hide_instability(m: Measurements) -> bool:
    """Whether the edge of stability lies inside the bar of what the step multiplies."""
    position = edge_position(m) if was_cut(m) else None
    return position is not None and position[0] <= stability_edge(m.momentum, nesterov=m.nesterov) < position[2]


def cut_reasons(m: Measurements) -> list[str]:
    """Why nothing is decided, where the solver's end is to blame; empty elsewhere."""
    if not was_cut(m):
        return []
    found = []
    if may_hide_saddle(m):
        found.append(
            f"lambda_min lies between {shown(m.lambda_min.low)} and {shown(m.lambda_min.value)}, "
            "and a saddle that matters is not ruled out"
        )
    if may_hide_instability(m):
        found.append(
            f"lambda_max lies between {shown(m.lambda_max.value)} and {shown(m.lambda_max.high)}, "
            "and with the edge of stability inside, an unstable step is not ruled out"
        )
    if is_hallucination_candidate(m) and m.jacobian_eigenvalues is None:
        found.append("the shifted gradient nearly vanishes, and the SAM Jacobian was left out")
    if found:
        found[0] = f"{why_cut(m)} before the ends of the spectrum were known: {found[0]}"
        found[-1] += f"; {TODO}"
    return found
