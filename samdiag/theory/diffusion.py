"""Noise along one direction: exact variance, what the batch does to it, and the number of steps until a saddle is
left.
"""

from __future__ import annotations

import cmath
import math


def step_noise(noise: float, batch_size: float, radius: float, lam: float, *, same_batch: bool = True) -> float:
    """Per-step gradient-noise variance c' along q: (qᵀCq/B)(1 + rho_eff·lam)² with one batch for both gradients, the
    practice.

    With `same_batch` False (ascent on the full gradient) it is qᵀCq/B. The papers' C = [H]⁺ is off by a factor of 2 to
    300 on small networks, so qᵀCq is always measured.

    Source: theory C1; KIM Thm 2 as quoted uses the surrogate's drift lam(1 + rho·lam)² and would never capture a
    saddle.
    """
    if math.isinf(radius):
        return math.inf
    return noise / batch_size * ((1.0 + radius * lam) ** 2 if same_batch else 1.0)


def roots(mu: float, lr: float, momentum: float) -> tuple[complex, complex]:
    """Roots r+ and r− of r² − (1 + gamma − eta·mu) r + gamma, the larger modulus first.

    Source: theory C2.
    """
    a = 1.0 + momentum - lr * mu
    root = cmath.sqrt(a * a - 4.0 * momentum)
    pair = sorted(((a + root) / 2.0, (a - root) / 2.0), key=abs, reverse=True)
    return pair[0], pair[1]


def variance(steps: int, mu: float, lr: float, momentum: float, noise: float) -> float:
    """V_N = eta² c' Σ_{k<N} h_k², h_k = (r+^{k+1} − r−^{k+1})/(r+ − r−): exact variance after N steps from rest.

    Here by the recurrence h_k = (1 + gamma − eta·mu) h_{k−1} − gamma h_{k−2}, which has no 0/0 at r+ = r−.

    Source: theory C2 (against simulation and the two stochastic cases).
    """
    return escape_profile(steps, mu, lr, momentum)[1] * lr**2 * noise


def escape_profile(steps: int, mu: float, lr: float, momentum: float) -> tuple[float, float]:
    """Amplitude x_N/x_0 of the mode started at rest, and Σ_{k<N} h_k².

    Source: theory C2, D4; x_N = x_0 (h_N − gamma h_{N−1}).
    """
    a = 1.0 + momentum - lr * mu
    before, h, total = 0.0, 1.0, 0.0
    for _ in range(steps):
        total += h * h
        before, h = h, a * h - momentum * before
    return h - momentum * before, total


def escape_steps(
    *,
    offset: float,
    noise: float,
    exit_distance: float,
    mu: float,
    lr: float,
    momentum: float,
    max_steps: int = 100_000,
) -> int | None:
    """First N with x_0²·growth² + V_N ≥ exit_distance², or None when that takes more than `max_steps` (or never
    happens).

    Args:
        offset: |x_0|, distance from the saddle along q now, in parameter units.
        noise: per-step gradient-noise variance along q (see `step_noise`).
        exit_distance: where q's share of the gradient has grown to the whole of it, G/|lam_min|.
        mu: shifted eigenvalue along q; the direction is left only if mu < 0.

    Source: theory D4 (against simulation: 498/498, 69/69, 31/31, 23/23).
    """
    if mu >= 0 or not math.isfinite(mu) or exit_distance <= 0 or (offset == 0 and noise == 0):
        return None
    a = 1.0 + momentum - lr * mu
    target = exit_distance**2
    before, h, total = 0.0, 1.0, 0.0
    for step in range(max_steps + 1):
        amplitude = offset * (h - momentum * before)
        if amplitude * amplitude + lr * lr * noise * total >= target:
            return step
        total += h * h
        before, h = h, a * h - momentum * before
    return None


def noise_scale(noise_trace: float, grad_norm_squared: float) -> float:
    """B_simple = tr C/|g|²: the batch size at which noise and signal are equal; infinite at a critical point.

    Source: McCandlish et al., An Empirical Model of Large-Batch Training, Sec. 2; theory C5.
    """
    return noise_trace / grad_norm_squared if grad_norm_squared > 0 else math.inf
