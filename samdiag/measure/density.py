"""Density, histogram and counts of a spectrum, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samdiag.curvature.density import Quadrature, axis_for, bin_edges, grid
from samdiag.spectral import Density, EigenvalueCount

DEFAULT_PROBES = 8  # a count of 40 is then good to 8 %, one of 1000 to 2 %; the standard error falls as 1/√probes
DEFAULT_STEPS = 40  # the bulk is then resolved to a fortieth of its spread
DRAWN = 241  # places of the density's curve: four to a kernel width on the usual range
DECADES, PER_DECADE = 3, 3  # of the histogram: at most 19 lines in a terminal
SMALL = 1e-3  # of the largest |eigenvalue|: "near zero" where no threshold was asked for

Array = NDArray[np.float64]
Mark = tuple[str, float, str]  # side, threshold, meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to look: random probes (0: no density), steps of each, and thresholds to count at."""

    num_probes: int = DEFAULT_PROBES
    num_steps: int = DEFAULT_STEPS
    thresholds: tuple[float, ...] = ()


def density_of(rule: Quadrature, low: float, high: float) -> Density:
    axis = axis_for(rule)
    places = grid(rule, axis, DRAWN)
    edges = bin_edges(low, high, decades=DECADES, per_decade=PER_DECADE)
    curve = rule.density(axis, places)
    bins = rule.count_between(edges[:-1], edges[1:])
    below = rule.count_below(edges)
    values = axis.value(places)
    per_unit = 1.0 / np.hypot(values, axis.linear_within)  # ds/dλ
    return Density(
        linear_within=axis.linear_within,
        width=axis.width,
        values=_tuple(values),
        density=_tuple(curve.value * per_unit),
        low=_tuple(curve.low * per_unit),
        high=_tuple(curve.high * per_unit),
        edges=_tuple(edges),
        counts=_tuple(bins.value),
        counts_low=_tuple(bins.low),
        counts_high=_tuple(bins.high),
        below=_tuple(below.value),
        below_low=_tuple(below.low),
        below_high=_tuple(below.high),
        num_probes=len(rule.rules),
        num_steps=max((len(r.nodes) for r in rule.rules), default=0),
        num_known=len(rule.known.values),
    )


def counts_of(
    rule: Quadrature, largest: float, effort: Effort, marks: Sequence[tuple[str, float, str]]
) -> tuple[EigenvalueCount, ...]:
    wanted = list(marks)
    near = effort.thresholds or ((SMALL * largest,) if largest > 0 else ())
    for t in near:
        meaning = "asked for" if effort.thresholds else f"{SMALL:g} of the largest |λ|"
        wanted += [("below", -t, meaning), ("within", t, meaning), ("above", t, meaning)]
    found = []
    for side, t, meaning in wanted:
        points = np.array([t])
        match side:
            case "below":
                banded = rule.count_below(points)
            case "above":
                banded = rule.count_above(points)
            case _:
                banded = rule.count_between(-points, points)
        found.append(
            EigenvalueCount(
                side=side,
                threshold=t,
                meaning=meaning,
                count=float(banded.value[0]),
                low=float(banded.low[0]),
                high=float(banded.high[0]),
            )
        )
    return tuple(found)


def _tuple(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
