"""The optimisers themselves, vectorised over runs: what every formula is compared with. PyTorch SGD's heavy ball."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Gradient = Callable[[Array], Array]


def heavy_ball(
    gradient: Gradient,
    x: Array,
    *,
    lr: float | Array,
    momentum: float | Array = 0.0,
    steps: int,
    nesterov: bool = False,
) -> Array:
    """x after `steps` of v ← gamma v + g(x), x ← x − eta v (Nesterov: x ← x − eta (g + gamma v))."""
    x, v = np.array(x, dtype=float), np.zeros_like(x, dtype=float)
    for _ in range(steps):
        g = gradient(x)
        v = momentum * v + g
        x = x - lr * (g + momentum * v if nesterov else v)
    return x


def trajectory(
    gradient: Gradient,
    x: Array,
    *,
    lr: float,
    momentum: float = 0.0,
    steps: int,
    nesterov: bool = False,
    velocity: Array | float = 0.0,
) -> Array:
    """[steps + 1, ...] every point of `heavy_ball`, here also with a velocity to start from."""
    x = np.array(x, dtype=float)
    v = np.zeros_like(x) + velocity
    points = [x]
    for _ in range(steps):
        g = gradient(x)
        v = momentum * v + g
        x = x - lr * (g + momentum * v if nesterov else v)
        points.append(x)
    return np.array(points)


def usam(lam: Array, rho: float | Array, weight_decay: float | Array = 0.0) -> Gradient:
    """USAM's update on ½ Σ lam x²: the gradient at x + rho·g, plus decay. x [runs, d]; parameters broadcast."""
    return lambda x: lam * (x + rho * lam * x) + weight_decay * x


def sam(lam: Array, rho: float | Array, weight_decay: float | Array = 0.0) -> Gradient:
    """Normalised SAM's update on ½ Σ lam x² (last axis: the coordinates); e = 0 where the gradient vanishes."""

    def update(x: Array) -> Array:
        g = lam * x
        norm = np.sqrt((g * g).sum(axis=-1, keepdims=True))
        return lam * (x + rho * g / np.where(norm > 0, norm, 1.0)) + weight_decay * x

    return update


def noisy_sam(lam: Array, rho: float, noise: Array, rng: np.random.Generator) -> Gradient:
    """Normalised SAM, one batch for both: g_b = lam x + n, n ~ N(0, noise) per coordinate (over B already)."""
    std = np.sqrt(noise)

    def update(x: Array) -> Array:
        n = std * rng.standard_normal(x.shape)
        g = lam * x + n
        return lam * (x + rho * g / np.linalg.norm(g, axis=-1, keepdims=True)) + n

    return update
