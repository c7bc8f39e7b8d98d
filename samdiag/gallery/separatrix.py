"""Which starts near a saddle SAM captures: the separatrix of the flow of normalised SAM on ½ lam(p² − q²).

In the limit of small steps p' = −lam p(1 + rho/r), q' = lam q(1 − rho/r) with r² = p² + q². The curvature only scales
time and rho only scales lengths, so that one curve S decides for every saddle with eigenvalues ±lam: captured iff
|q|/rho < S(|p|/rho). It is the stable manifold of the repelling point (0, rho), where x+ is the saddle itself.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NEAREST = 1e-3  # |p|/rho at which the curve is begun by its series
FARTHEST = 1e4  # |p|/rho at which it ends: |q|/rho is 3e-4 there, 30 million times nearer to the stable axis
NUM_POINTS = 20_000  # an RK4 step of 0.0008 in log p: an error far below 1e-9


@lru_cache(maxsize=1)
def separatrix() -> tuple[Array, Array]:
    """(P, S(P)) for P = |p|/rho from 1e-3 to 1e4, S falling from 1 to 3.4/P.

    Source: derived here; dq/dp = −q(r − 1)/(p(r + 1)) in units of rho, begun at q = 1 − p²/10 near the repeller.
    """
    logs = np.linspace(math.log(NEAREST), math.log(FARTHEST), NUM_POINTS)
    h = float(logs[1] - logs[0])
    q = 1.0 - NEAREST**2 / 10.0
    curve = [q]
    for log in logs[:-1].tolist():
        k1 = _slope(log, q)
        k2 = _slope(log + h / 2, q + h / 2 * k1)
        k3 = _slope(log + h / 2, q + h / 2 * k2)
        k4 = _slope(log + h, q + h * k3)
        q += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        curve.append(q)
    return np.exp(logs), np.array(curve)


def _slope(log: float, q: float) -> float:
    """dq/d log p."""
    r = math.hypot(math.exp(log), q)
    return -q * (r - 1.0) / (r + 1.0)


def capture_radius(p: float, q: float) -> float:
    """The smallest rho with which normalised SAM, started at (p, q), is captured in the limit of small steps."""
    grid, curve = separatrix()
    ratio = curve / grid  # falls along the curve: each ray from the saddle meets it once
    at = float(np.interp(math.log(abs(p / q)), -np.log(ratio), np.log(grid)))
    return abs(p) / math.exp(at)


def captured_share(rho: float, spread: float) -> float:
    """Probability that a start with p and q from N(0, spread²) is captured: ∫ φ(p) P(|q| < rho·S(|p|/rho)) dp.

    0 at rho = 0, which is gradient descent.
    """
    if rho == 0:
        return 0.0
    grid, curve = separatrix()
    scale = rho / spread
    p = np.concatenate([[0.0], grid]) * scale
    inside = np.array([math.erf(scale * s / math.sqrt(2.0)) for s in np.concatenate([[1.0], curve])])
    density = 2.0 * np.exp(-0.5 * p**2) / math.sqrt(2.0 * math.pi)
    heights = density * inside
    return float((0.5 * (heights[1:] + heights[:-1]) * np.diff(p)).sum())
