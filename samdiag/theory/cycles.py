"""Longer bounces: with momentum, cycles of normalised SAM along one valley that are larger than the period-2 bounce."""

from __future__ import annotations

from dataclasses import dataclass

from samdiag.theory.edge import root_sum_and_product, stability_edge

LONGEST = 32  # half-period searched by default: gamma 0.99 and eta·lam 0.02 reach 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BounceCycle:
    """One cycle of normalised SAM on ½ lam x²: `half_period` steps on either side of the valley floor.

    Attributes:
        half_period: n with x_{k+n} = −x_k; 1 is the period-2 bounce.
        amplitude: largest |x|, in parameter units.
        smallest_distance: smallest |x|, in parameter units: a disturbance smaller than that does not change the side.
    """

    half_period: int
    amplitude: float
    smallest_distance: float


def bounce_cycles(
    lam: float, rho: float, lr: float, momentum: float, *, nesterov: bool = False, longest: int = LONGEST
) -> tuple[BounceCycle, ...]:
    """Every attracting cycle with x_{k+n} = −x_k and one change of side in n ≤ `longest` steps, smallest first.

    Exact: with the sides given the step is linear, so that a cycle of half-period n is the solution of n linear
    equations, and it exists iff all n points lie on the side assumed. It attracts whenever it exists, since between
    changes of side the step contracts (eta·lam below the edge). Empty at or beyond the edge and for lam ≤ 0.

    Not all cycles: asymmetric ones and ones that change side more often are left out. In simulation from 300 starts
    those listed caught all runs for gamma ≤ 0.5, 94 % or more of the heavy-ball runs with eta·lam ≤ 0.5 for
    gamma ≤ 0.95, and as few as half the Nesterov runs at gamma 0.95 (the rest in cycles of at most 3 times the bounce).

    Source: theory A9 (longer cycles with momentum); (D) the linear equations, simulated.
    """
    import numpy as np

    if lam <= 0 or lr * lam >= stability_edge(momentum, nesterov=nesterov):
        return ()
    a, c = (v.real for v in root_sum_and_product(lam, lr, momentum, nesterov=nesterov))
    now, before = (1.0 + momentum, momentum) if nesterov else (1.0, 0.0)
    cycles = []
    for n in range(1, longest + 1):
        # x_{k+1} − a x_k + c x_{k−1} = −eta·lam·rho (now·s_k − before·s_{k−1}), s the side, and x_{k+n} = −x_k
        matrix = -a * np.eye(n)
        force = np.full(n, now - before)
        force[0] = now + before
        for k in range(n):
            matrix[k, (k + 1) % n] += 1.0 if k + 1 < n else -1.0
            matrix[k, k - 1] += c if k > 0 else -c
        points = np.linalg.solve(matrix, -lr * lam * rho * force)
        if points.min() > 0:
            cycles.append(
                BounceCycle(half_period=n, amplitude=float(points.max()), smallest_distance=float(points.min()))
            )
    return tuple(cycles)
