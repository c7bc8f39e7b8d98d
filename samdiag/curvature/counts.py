"""How many eigenvalues there are, from the weight that Gaussian probes see: exact intervals, no large-sample theory.

For p Gaussian vectors z in n dimensions the share of Σ‖z‖² that lies in a k-dimensional eigenspace is
Beta(pk/2, p(n − k)/2), whatever the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from math import lgamma
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LARGE = 1e4  # both parameters above it: Paulson's approximation is then good to 1e-5
MOST_TERMS = 1000  # of the continued fraction, which needs about √LARGE times a few
NEGLIGIBLE = 1e-12  # weight below which float64 rounding of the small problem is all there is

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def count_interval(
    low: Array, high: Array, *, dim: int, num_probes: int, confidence: float = 0.95
) -> tuple[Integers, Integers]:
    """The numbers of eigenvalues that are compatible with a pooled weight in [low, high]: smallest and largest, [k].

    The interval covers the true number with at least the given confidence: it is the inversion of two one-sided tests,
    each at (1 − confidence)/2. Where low = high it is as short as such an interval can be.

    Args:
        low, high: [k] bounds on Σ_p ‖P z_p‖²/Σ_p ‖z_p‖², P the projector on the eigenspace in question.
        dim: n, dimensions that the probes were drawn in.
        num_probes: p.
        confidence: e.g. 0.95.
    """
    low, high = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
    low, high = np.where(low <= NEGLIGIBLE, 0.0, low), np.where(high >= 1.0 - NEGLIGIBLE, 1.0, high)
    tail = (1.0 - confidence) / 2.0
    # smallest k with P[B(k) ≥ low] > tail; largest k with P[B(k) ≤ high] > tail; both change once as k grows
    smallest = _first(lambda k: 1.0 - _below(low, k, dim, num_probes, or_at=False) > tail, len(low), dim)
    largest = _first(lambda k: _below(high, k, dim, num_probes, or_at=True) <= tail, len(high), dim + 1) - 1
    return smallest, np.maximum(largest, smallest)


def standard_error(count: Array, *, dim: int, num_probes: int) -> Array:
    """Standard deviation of n·(pooled weight) about the number of eigenvalues: √(2k(n − k)/(pn + 2))."""
    spread: Array = np.sqrt(2.0 * count * np.maximum(dim - count, 0.0) / (num_probes * dim + 2.0))
    return spread


def _first(holds: Callable[[Integers], NDArray[np.bool_]], size: int, most: int) -> Integers:
    """Smallest k in 0…most for which `holds(k)` [size] is true; `most` where it never is before."""
    low, high = np.zeros(size, dtype=np.int64), np.full(size, most, dtype=np.int64)
    while bool((low < high).any()):
        middle = (low + high) // 2
        true = holds(middle)
        high, low = np.where(true, middle, high), np.where(true | (low >= high), low, middle + 1)
        low = np.minimum(low, high)
    return low


def _below(x: Array, k: Integers, dim: int, num_probes: int, *, or_at: bool) -> Array:
    """P[B(k) < x], or ≤ x: they differ where B is certain, at k = 0 and k = n."""
    a, b = num_probes * k / 2.0, num_probes * (dim - k) / 2.0
    inside = (k > 0) & (k < dim)
    result = cumulative_beta(np.where(inside, x, 0.5), np.where(inside, a, 1.0), np.where(inside, b, 1.0))
    certain = np.where(k <= 0, 0.0, 1.0)
    at = (certain <= x) if or_at else (certain < x)
    found: Array = np.where(inside, result, at.astype(np.float64))
    return found


def cumulative_beta(x: Array, a: Array, b: Array) -> Array:
    """P[Beta(a, b) ≤ x], all [k], 0 ≤ x ≤ 1.

    Source: Abramowitz & Stegun 26.5.8 (continued fraction, modified Lentz); both parameters large: Paulson,
    Ann. Math. Stat. 13 (1942).
    """
    large = (np.minimum(a, b) > LARGE) & (x > 0) & (x < 1)
    result = np.empty_like(x)
    if large.any():
        result[large] = _paulson(x[large], a[large], b[large])
    small = ~large
    swap = x > (a + 1.0) / (a + b + 2.0)
    u, v, y = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1.0 - x, x)
    part = _fraction(y[small], u[small], v[small])
    result[small] = np.where(swap[small], 1.0 - part, part)
    return result


def _paulson(x: Array, a: Array, b: Array) -> Array:
    ratio = np.cbrt(b * x / (a * (1.0 - x)))
    first, second = 1.0 / (9.0 * a), 1.0 / (9.0 * b)
    z = ((1.0 - second) * ratio - (1.0 - first)) / np.sqrt(second * ratio**2 + first)
    normal = NormalDist()
    return np.array([normal.cdf(float(value)) for value in z])


def _fraction(x: Array, a: Array, b: Array) -> Array:
    tiny = 1e-300
    if not len(x):
        return x
    front = np.array([lgamma(p + q) - lgamma(p) - lgamma(q) for p, q in zip(a, b, strict=True)])
    with np.errstate(divide="ignore"):
        front = front + a * np.log(x) + b * np.log1p(-x)
    c = np.ones_like(x)
    d = 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / np.where(np.abs(d) < tiny, tiny, d)
    value = d.copy()
    for i in range(1, MOST_TERMS):
        step = np.ones_like(x)
        for numerator in (
            i * (b - i) * x / ((a + 2 * i - 1) * (a + 2 * i)),
            -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / np.where(np.abs(d) < tiny, tiny, d)
            c = 1.0 + numerator / c
            c = np.where(np.abs(c) < tiny, tiny, c)
            step = c * d
            value = value * step
        if bool((np.abs(step - 1.0) < 1e-14).all()):
            break
    found: Array = np.clip(np.exp(front) * value / a, 0.0, 1.0)
    return found
