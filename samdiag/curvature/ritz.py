"""What an eigenvalue solver says of both ends: Ritz values, residuals, bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

OTHERS_TOLERANCE = 0.1  # residual asked of the eigenvalues behind the first at each end, relative to themselves

Matvec = Callable[[Tensor], Tensor]
Decided = Callable[["RitzEnds"], bool]
Progress = Callable[["RitzEnds"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RitzEnds:
    """Ritz values at both ends with their residuals; ascending at the bottom, descending at the top (host floats).

    `bounds(probability)` are numbers below and above the whole spectrum, each with that probability.
    """

    bottom: list[float]
    bottom_residuals: list[float]
    top: list[float]
    top_residuals: list[float]
    steps: int = 0
    bounds: Callable[[float], tuple[float, float]] = lambda _: (-math.inf, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class KrylovSpectrum:
    """Extremal Ritz pairs.

    Attributes:
        bottom: [k] ascending Ritz values; bottom_vectors [k, d].
        top: [k] descending; top_vectors [k, d].
        bottom_residuals, top_residuals: [k] ‖Hq − theta q‖ as the recurrence gives it.
        bottom_converged, top_converged: [k] whether each met the tolerance.
        steps: products taken.
        restarts: how often the basis was compressed to stay within its capacity.
        complete: the whole spectrum was found, so that nothing lies beyond either list.
        all_values: every eigenvalue, ascending, when complete; else empty.
        stopped: "converged", "decided" (the caller was certain before), "products" (none left), or what `stop` said.
        bounds: numbers below and above the whole spectrum, each with the probability it is asked for.
    """

    bottom: list[float]
    bottom_vectors: Tensor
    bottom_residuals: list[float]
    bottom_converged: list[bool]
    top: list[float]
    top_vectors: Tensor
    top_residuals: list[float]
    top_converged: list[bool]
    steps: int
    restarts: int
    complete: bool
    all_values: list[float]
    all_vectors: Tensor | None
    stopped: str
    bounds: Callable[[float], tuple[float, float]]


def worst_over_tolerance(ends: RitzEnds, tol: float) -> float:
    """Worst residual over its tolerance; ≤ 1 when every eigenvalue asked for has converged."""
    scale = max(abs(ends.top[0]), abs(ends.bottom[0]))
    worst = 0.0
    for values, residuals in ((ends.bottom, ends.bottom_residuals), (ends.top, ends.top_residuals)):
        for i, (value, residual) in enumerate(zip(values, residuals, strict=True)):
            allowed = allowed_residual(value, scale, tol if i == 0 else max(tol, OTHERS_TOLERANCE))
            worst = max(worst, residual / allowed if allowed > 0 else (0.0 if residual == 0 else math.inf))
    return worst


def allowed_residual(value: float, scale: float, tol: float) -> float:
    """The residual that counts as converged for a Ritz value beside a spectral radius `scale`."""
    return tol * max(abs(value), 1e-6 * scale)  # 1e-6: float32 products resolve nothing finer


def found_pairs(
    ends: RitzEnds,
    tol: float,
    *,
    bottom_vectors: Tensor,
    top_vectors: Tensor,
    stopped: str,
    restarts: int = 0,
    all_values: list[float] | None = None,
    all_vectors: Tensor | None = None,
) -> KrylovSpectrum:
    """A solver's ends with their vectors [k, d] each; the whole spectrum too where it is known."""
    scale = max(abs(ends.top[0]), abs(ends.bottom[0]))

    def met(values: list[float], residuals: list[float]) -> list[bool]:
        return [r <= allowed_residual(v, scale, tol) for v, r in zip(values, residuals, strict=True)]

    return KrylovSpectrum(
        bottom=ends.bottom,
        bottom_vectors=bottom_vectors,
        bottom_residuals=ends.bottom_residuals,
        bottom_converged=met(ends.bottom, ends.bottom_residuals),
        top=ends.top,
        top_vectors=top_vectors,
        top_residuals=ends.top_residuals,
        top_converged=met(ends.top, ends.top_residuals),
        steps=ends.steps,
        restarts=restarts,
        complete=all_vectors is not None,
        all_values=all_values or [],
        all_vectors=all_vectors,
        stopped=stopped,
        bounds=ends.bounds,
    )
