"""The cycles in which normalised SAM bounces along one direction of curvature lam > 0, computed exactly.

In units of rho, with a = eta·lam and u = eta·v: u ← gamma u + a(x + sign x), x ← x − u. Between two changes of sign
this is linear, so that a cycle of period 2P that is its own mirror image solves (1 + A^P) z = −Σ A^k b, and it exists
if x stays positive for P steps. It is stable wherever it exists, because A is.
"""

from __future__ import annotations

import numpy as np

from samdiag.gallery.dynamics import Array

LONGEST = 60  # half a period; with gamma 0.9 none is longer than 7 steps from eta·lam 0.02 on


def symmetric_cycles(a: float, momentum: float) -> dict[int, float]:
    """Period → largest |x| in units of rho, of every mirror-symmetric cycle at eta·lam = `a`, 0 < a < 2(1 + gamma).

    The period 2 has amplitude a/(2(1+gamma) − a), the bounce of docs/theory.md A9.

    Source: derived here; docs/theory.md A9 (longer, larger cycles coexist with momentum).
    """
    step = np.array([[1.0 - a, -momentum], [a, momentum]])  # of (x, u)
    push = np.array([-a, a])
    power, pushed = np.eye(2), np.zeros(2)
    found = {}
    for half in range(1, LONGEST + 1):
        power, pushed = step @ power, step @ pushed + push
        point = -np.linalg.lstsq(np.eye(2) + power, pushed, rcond=None)[0]
        largest = _largest(point, step, push, half)
        if largest is not None:
            found[2 * half] = largest
    return found


def _largest(point: Array, step: Array, push: Array, half: int) -> float | None:
    """The largest x of half a cycle that begins at `point`; None where x does not stay positive, so that it is none."""
    largest = 0.0
    for _ in range(half):
        if point[0] <= 0.0:
            return None
        largest = max(largest, float(point[0]))
        point = step @ point + push
    return largest if point[0] < 0.0 else None


def observed_period(tail: Array, *, longest: int = 2 * LONGEST, tolerance: float = 1e-6) -> int | None:
    """The shortest period of `tail` [steps], to `tolerance` of its largest number; None if there is none."""
    scale = float(np.abs(tail).max())
    for period in range(1, min(longest, len(tail) // 2) + 1):
        if float(np.abs(tail[period:] - tail[:-period]).max()) <= tolerance * scale:
            return period
    return None
