"""The level at which SAM with constant rho stops."""

from __future__ import annotations

import math
from dataclasses import dataclass


def convergence_floor(rho: float, lam_max: float) -> float:
    """Gradient norm beta·rho (beta ≈ lam_max) below which constant-rho SAM is not guaranteed to go on.

    Recalled from the paper and not re-read: stochastic SAM, and deterministic SAM on non-convex f, stop at |g|² of
    order beta²rho². It bounds what is guaranteed; a run below it may still progress, so samdiag also looks whether the
    next steps lower the loss.

    Source: SI, Thms on constant rho; theory D, convergence floor [R].
    """
    return rho * max(lam_max, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SineExample:
    """Where full-batch SAM stalls on SI's sine, with |∇f| > 0: a hallucinated minimizer.

    Attributes:
        point: x_h = −rho/10.
        perturbed: x+ = 9 rho/10, the minimum of f.
        grad_norm: |f'(x_h)| = (3√3/10pi) beta·rho = 0.16540 beta·rho.
        curvature: f''(x_h) = beta/2: convex there.
        jacobian: f''(x+) = beta: attracting for eta·beta below the edge.
    """

    point: float
    perturbed: float
    grad_norm: float
    curvature: float
    jacobian: float


def sine_gradient(x: float, beta: float, rho: float) -> float:
    """f'(x) of SI's f(x) = (9 beta rho²/25 pi²) sin(5 pi x/(3 rho)), a beta-smooth function.

    Source: SI, the lower bound for smooth non-convex f; recalled and not re-read [R]. theory E.
    """
    return 3.0 * beta * rho / (5.0 * math.pi) * math.cos(5.0 * math.pi * x / (3.0 * rho))


def sine_example(beta: float, rho: float) -> SineExample:
    """The stall on SI's sine in numbers: |g| = 0.1654 beta·rho for ever, whatever the step size below 2/beta.

    It shows that the floor beta·rho is of the right order (a sixth of it is reached and never left) and that no
    eta, however small, takes deterministic SAM with constant rho below it on this f.

    Source: SI, as `sine_gradient`; theory E (the numbers checked by simulation).
    """
    return SineExample(
        point=-rho / 10.0,
        perturbed=0.9 * rho,
        grad_norm=3.0 * math.sqrt(3.0) / (10.0 * math.pi) * beta * rho,
        curvature=beta / 2.0,
        jacobian=beta,
    )
