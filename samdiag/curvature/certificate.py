"""How far a Ritz value can be from the end of the spectrum: a bound with a probability over the random start vector."""

from __future__ import annotations

import math


def spectrum_bounds(
    alpha: list[float], beta: list[float], dim: int, *, low: float, high: float, probability: float
) -> tuple[float, float]:
    """Numbers below and above the whole spectrum, each with the given probability, from one Lanczos run.

    The k-th Lanczos polynomial has ‖p_k(A) v₀‖ = 1, so |p_k(lambda)| ≤ 1/|γ| for every eigenvalue lambda whose
    eigenvector has the component γ in the start vector. For a uniformly random start P[|γ| < delta] ≤ delta·√(2d/π),
    so with delta = (1 − probability)·√(π/2d) an extremal eigenvalue lies where |p_k| ≤ 1/delta. Outside the Ritz
    values |p_k| grows monotonically: bisection finds the place.

    A Ritz value bounds lambda_min from above only; this is what bounds it from below.

    Args:
        alpha: [k] diagonal of the Lanczos matrix.
        beta: [k] off-diagonal, all positive; beta[k−1] is the norm of the last residual, tiny where the Krylov space is
            invariant.
        dim: dimension of the operator.
        low, high: smallest and largest Ritz value.
        probability: e.g. 0.99.

    Source: van Dorsselaer, Hochstenbach & van der Vorst, Computing probabilistic bounds for extreme eigenvalues of
    symmetric matrices with the Lanczos method, SIAM J. Matrix Anal. Appl. 22 (2000), Lanczos polynomials.
    """
    log_limit = -math.log((1.0 - probability) * math.sqrt(math.pi / (2.0 * dim)))
    return (
        _beyond(alpha, beta, low, -1.0, high - low, log_limit),
        _beyond(alpha, beta, high, 1.0, high - low, log_limit),
    )


def _beyond(alpha: list[float], beta: list[float], end: float, sign: float, spread: float, log_limit: float) -> float:
    inner, outer = 0.0, max(spread, abs(end), 1e-300) * 1e-9
    while _log_polynomial(alpha, beta, end + sign * outer) < log_limit:
        inner, outer = outer, outer * 4.0
        if not math.isfinite(outer):
            return sign * math.inf
    for _ in range(60):
        middle = (inner + outer) / 2.0
        if _log_polynomial(alpha, beta, end + sign * middle) < log_limit:
            inner = middle
        else:
            outer = middle
    return end + sign * outer


def _log_polynomial(alpha: list[float], beta: list[float], x: float) -> float:
    """log |p_k(x)| by the three-term recurrence, rescaled so that it neither overflows nor underflows."""
    before, now, scale = 0.0, 1.0, 0.0
    for i, a in enumerate(alpha):
        after = ((x - a) * now - (beta[i - 1] * before if i else 0.0)) / beta[i]
        before, now = now, after
        size = max(abs(before), abs(now))
        if size > 1e100 or 0 < size < 1e-100:
            before, now, scale = before / size, now / size, scale + math.log(size)
    return scale + math.log(abs(now)) if now else -math.inf
