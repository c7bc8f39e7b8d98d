"""The level at which SAM with constant rho stops."""

from __future__ import annotations


def convergence_floor(rho: float, lam_max: float) -> float:
    """Gradient norm beta·rho (beta ≈ lam_max) below which constant-rho SAM is not guaranteed to go on.

    Recalled from the paper and not re-read: stochastic SAM, and deterministic SAM on non-convex f, stop at |g|² of
    order beta²rho². It bounds what is guaranteed; a run below it may still progress, so samdiag also looks whether the
    next steps lower the loss.

    Source: SI, Thms on constant rho; theory D, convergence floor [R].
    """
    return rho * max(lam_max, 0.0)
