"""SAM on small functions in float64, many runs at once: what the experiments measure.

Points are arrays [d, runs], coordinates first. The update is that of the papers: v ← gamma v + ∇f(x + e(x)),
x ← x − eta v, from v = 0, with e = rho g/|g| (SAM) or rho g (USAM); rho = 0 is gradient descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Gradient = Callable[[Array], Array]
Variant = Literal["sam", "usam"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one update saw.

    Attributes:
        before: [d, runs] the points x.
        gradient: [d, runs] g.
        shifted: [d, runs] g+.
        after: [d, runs] the points after the update.
    """

    before: Array
    gradient: Array
    shifted: Array
    after: Array


def steps(
    gradient: Gradient,
    start: ArrayLike,
    *,
    rho: ArrayLike,
    lr: ArrayLike,
    num_steps: int,
    momentum: float = 0.0,
    variant: Variant = "sam",
    velocity: ArrayLike = 0.0,
) -> Iterator[Step]:
    """One `Step` per update. A run that overflows turns into infinities and NaN, without a warning.

    Args:
        gradient: [d, runs] → [d, runs].
        start: [d, runs], or [d] for one run; `rho` and `lr` broadcast to [runs].
        rho: radius; 0 is gradient descent.
        lr: learning rate eta.
        num_steps: number of updates.
        momentum: heavy-ball gamma.
        variant: "sam" or "usam".
        velocity: v before the first update; broadcasts to the start.
    """
    radius, eta = np.asarray(rho, dtype=float), np.asarray(lr, dtype=float)
    x = np.array(start, dtype=float)
    shape = (len(x), *np.broadcast_shapes(x.shape[1:], radius.shape, eta.shape))
    x = np.array(np.broadcast_to(x.reshape(len(x), -1) if len(shape) > 1 else x, shape))
    v = np.broadcast_to(np.asarray(velocity, dtype=float), shape)
    for _ in range(num_steps):
        with np.errstate(all="ignore"):
            g = gradient(x)
            scale = radius if variant == "usam" else _over(radius, np.sqrt((g * g).sum(axis=0)))
            shifted = gradient(x + scale * g)
            v = momentum * v + shifted if momentum else shifted
            after = x - eta * v
        yield Step(before=x, gradient=g, shifted=shifted, after=after)
        x = after


def run(gradient: Gradient, start: ArrayLike, **settings: object) -> Array:
    """The points [d, runs] after all updates; see `steps`.

    Raises:
        ValueError: there are no steps.
    """
    end: Array | None = None
    for step in steps(gradient, start, **settings):  # type: ignore[arg-type]
        end = step.after
    if end is None:
        raise ValueError("num_steps must be positive")
    return end


def cosine(step: Step) -> Array:
    """cos(g, g+) of each run; NaN where one of them vanishes."""
    with np.errstate(all="ignore"):
        both = (step.gradient * step.shifted).sum(axis=0)
        return np.asarray(both / np.sqrt((step.gradient**2).sum(axis=0) * (step.shifted**2).sum(axis=0)))


def quadratic(curvatures: ArrayLike) -> Gradient:
    """The gradient of ½ Σ lam_j x_j²; `curvatures` [d], or [d, runs] for a quadratic per run."""
    lam = np.asarray(curvatures, dtype=float)
    return lambda x: (lam if lam.ndim == x.ndim else lam[:, None]) * x


def first_true(grid: Array, holds: NDArray[np.bool_]) -> tuple[float, float]:
    """The neighbours (below, above) of an ascending grid between which `holds` turns from False to True for good.

    (−∞, grid[0]) where it holds everywhere; (grid[-1], ∞) where the last does not hold.
    """
    failing = np.flatnonzero(~holds)
    if len(failing) == 0:
        return -math.inf, float(grid[0])
    index = int(failing[-1])
    return float(grid[index]), float(grid[index + 1]) if index + 1 < len(grid) else math.inf


def narrowed(
    holds: Callable[[Array], NDArray[np.bool_]], low: float, high: float, *, rounds: int, points: int
) -> tuple[float, float]:
    """A bracket of the value at which `holds` becomes True: `points` values a round, all runs of a round at once.

    Args:
        holds: values [points] → bool [points].
        low: where it does not hold.
        high: where it holds.
        rounds: the bracket becomes (points − 1) times narrower in each.
        points: values per round, both ends included.
    """
    for _ in range(rounds):
        if not math.isfinite(low) or not math.isfinite(high):
            break
        grid = np.linspace(low, high, points)
        low, high = first_true(grid, holds(grid))
    return low, high


def zero_crossing(x: ArrayLike, y: ArrayLike) -> float:
    """Where the straight line between the two neighbours at which `y` first changes sign is 0; NaN if it never does."""
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    change = np.flatnonzero(np.sign(ys[:-1]) != np.sign(ys[1:]))
    if len(change) == 0:
        return math.nan
    i = int(change[0])
    return float(xs[i] - ys[i] * (xs[i + 1] - xs[i]) / (ys[i + 1] - ys[i]))


def _over(radius: Array, norm: Array) -> Array:
    """rho/|g|, and 0 where g = 0 and SAM has no direction."""
    return np.divide(radius, norm, out=np.zeros(np.broadcast_shapes(radius.shape, norm.shape)), where=norm > 0)
