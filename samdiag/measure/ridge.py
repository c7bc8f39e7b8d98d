"""The ridge distance: how far along the ascent direction the loss stops rising."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.types import UNKNOWN, Estimate

GRID = (
    0.125,
    0.25,
    0.375,
    0.5,
    0.625,
    0.75,
    0.875,
    1.0,
    1.25,
    1.5,
    2.0,
    3.0,
    4.0,
)  # in units of |e|: dense where rho < s* is decided
BISECTIONS = 7  # a grid cell of |e|/8 is then known to |e|/1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridge:
    """s* with its bracket, or how far was searched without finding one."""

    distance: Estimate
    searched: float


def measure_ridge(objective: Objective, x: Tensor, displacement: Tensor, grid: Sequence[float] = GRID) -> Ridge:
    """s* = min{s > 0 : d·∇f(x + s d) ≤ 0} along the unit ascent direction d, in parameter units; about 20 gradients.

    |e| < s* certifies that x is not hallucinated. The search goes over a fixed grid, in units of |e|, and then bisects,
    so two crossings within one cell would be missed. The objective is left at `x`.

    Source: theory B5.
    """
    length = float(torch.linalg.vector_norm(displacement))
    if length == 0:
        return Ridge(distance=UNKNOWN, searched=0.0)
    direction = displacement / length

    def slope(s: float) -> float:
        objective.move_to(x + s * direction)
        _, gradient = objective.gradient()
        return float(torch.dot(direction, gradient))

    try:
        low = 0.0
        for factor in grid:
            here = slope(factor * length)
            if not math.isfinite(here):
                break  # a pole is no ridge
            if here <= 0:
                return Ridge(distance=_bisect(slope, low, factor * length), searched=low)
            low = factor * length
        return Ridge(distance=UNKNOWN, searched=low)
    finally:
        objective.move_to(x)


def _bisect(slope: Callable[[float], float], low: float, high: float) -> Estimate:
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if slope(middle) > 0:
            low = middle
        else:
            high = middle
    return Estimate(value=(low + high) / 2, error=(high - low) / 2)
