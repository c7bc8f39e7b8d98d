"""Saddles under SAM: which negative directions are captured, and how fast the others are left."""

from __future__ import annotations

import math
from collections.abc import Iterable

from samdiag.theory.edge import stability_edge


def effective_radius(rho: float, grad_norm: float, noise_trace: float = 0.0, ascent_batch: float = math.inf) -> float:
    """rho_eff of normalised SAM: rho/√(|g|² + tr C/m); infinite at an exact critical point without noise.

    m = `ascent_batch`, the samples behind the ascent gradient (infinite: full batch). The square root stands for the
    mean over batches of (1 − (u·q)²)/|g_b|, which needs about three effective noise dimensions.

    Source: theory A, head (D; checked). USAM's effective radius is rho itself.
    """
    scale = math.sqrt(max(grad_norm, 0.0) ** 2 + max(noise_trace, 0.0) / ascent_batch)
    return rho / scale if scale > 0 else math.inf


def shifted_eigenvalue(lam: float, radius: float, weight_decay: float = 0.0) -> float:
    """mu = lam(1 + rho_eff·lam) + wd: the curvature that SAM's step sees along an eigenvector of curvature lam.

    Source: KIM Thm 1 (drift Λ + rho Λ²); theory A1.
    """
    if math.isinf(radius):
        return math.inf if lam != 0 else weight_decay
    return lam * (1.0 + radius * lam) + weight_decay


def mu_range(low: float, high: float, radius: float, weight_decay: float = 0.0) -> tuple[float, float]:
    """Smallest and largest mu over lam in [low, high]; the parabola's vertex −1/(2 rho_eff) counts where it is inside.

    Source: theory A1.
    """
    ends = [shifted_eigenvalue(low, radius, weight_decay), shifted_eigenvalue(high, radius, weight_decay)]
    if 0 < radius < math.inf and low < -1.0 / (2.0 * radius) < high:
        ends.append(weight_decay - 1.0 / (4.0 * radius))
    return min(ends), max(ends)


def usam_window(eigenvalues: Iterable[float], lr: float, momentum: float) -> tuple[float, float]:
    """Open interval of rho in which USAM is captured by a saddle with these eigenvalues (empty when low ≥ high).

    low = max over negative lam of 1/|lam|: the negative eigenvalue of *smallest* magnitude binds. KIM Thm 1 states the
    interval with lambda_1 alone, which is wrong on 99 % of random saddles of index ≥ 2. high = min over lam of
    (2(1+gamma)/eta − lam)/lam².

    Source: KIM Thm 1, corrected; theory A2.
    """
    values = [v for v in eigenvalues if v != 0]
    low = max((1.0 / abs(v) for v in values if v < 0), default=0.0)
    high = min(((stability_edge(momentum) / lr - v) / v**2 for v in values), default=math.inf)
    return low, high


def capture_radius(lam: float, weight_decay: float = 0.0) -> float:
    """rho_eff above which the direction of curvature lam < 0 is captured: (1 − wd/|lam|)/|lam|, 0 if weight decay
    alone does it.

    Source: theory A2.
    """
    return max(0.0, 1.0 - weight_decay / abs(lam)) / abs(lam)


def escape_rate(lam: float, radius: float, weight_decay: float = 0.0) -> float:
    """Rate −mu at which a direction of curvature lam < 0 is left, in units of 1/eta; negative: captured.

    Source: theory A4.
    """
    return -shifted_eigenvalue(lam, radius, weight_decay)


def fastest_escape_rate(largest: float, radius: float, weight_decay: float = 0.0) -> float:
    """Upper bound of the escape rate over every negative eigenvalue of magnitude at most `largest`.

    The rate |lam|(1 − rho_eff|lam|) − wd peaks at |lam| = 1/(2 rho_eff): no saddle is left faster than 1/(4 rho_eff).

    Source: theory A4 (D).
    """
    if math.isinf(radius):
        return 0.0
    peak = largest if radius == 0 else min(largest, 1.0 / (2.0 * radius))
    return max(0.0, escape_rate(-peak, radius, weight_decay))


def escape_factor(lam: float, lr: float, momentum: float) -> float:
    """Growth per step r+ = (a + √(a² − 4gamma))/2, a = 1 + gamma + eta|mu|, along a direction with mu = `lam` < 0.

    Source: theory A3.
    """
    a = 1.0 + momentum + lr * abs(lam)
    return (a + math.sqrt(max(a * a - 4.0 * momentum, 0.0))) / 2.0


def without_replacement(batch_size: float, population: int | None) -> float:
    """The batch whose noise tr C(1/B − 1/N) is that of `batch_size` samples drawn with replacement: 1/(1/B + 1/N).

    Source: finite-population sampling; theory C5.
    """
    return 1.0 / (1.0 / batch_size + 1.0 / population) if population and batch_size > 0 else batch_size


def critical_batch_size(
    noise_trace: float, rho: float, lam: float, grad_norm: float, population: int | None = None
) -> float:
    """B_crit = tr C/((rho|lam|)² − |g|²): above it normalised SAM is captured along lam, below it the noise frees it.

    Infinite when |g| ≥ rho|lam|: then it is free at every batch size. This, not the 1/B prefactor of the diffusion
    term, is how small batches rescue SAM.

    Source: theory A7 (checked).
    """
    bracket = (rho * lam) ** 2 - grad_norm**2
    return without_replacement(noise_trace / bracket, population) if bracket > 0 else math.inf


def captured_while_bouncing(lam_negative: float, lam_max: float, lr: float, momentum: float) -> bool:
    """Whether lam_j is captured while full-batch normalised SAM bounces along lam_max; independent of rho.

    |lam_j|(2(1+gamma)/eta − lam_max) > lam_max². Learning-rate decay creates such traps.

    Source: theory A6 (checked).
    """
    return abs(lam_negative) * (stability_edge(momentum) / lr - lam_max) > lam_max**2


def momentum_frees_maximum(lam: float, lr: float, momentum: float) -> bool:
    """Whether momentum carries full-batch normalised SAM out of a pure maximum: gamma > 1 − eta|lam|.

    Holds for a maximum direction alone; a single positive direction is enough to void it.

    Source: theory A8 (D, simulated).
    """
    return momentum > 1.0 - lr * abs(lam)
