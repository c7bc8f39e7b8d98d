"""Noise along one direction: exact variance, what the batch does to it, and the number of steps until a saddle is
left.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Iterator
from typing import Literal, assert_never

from samdiag.theory.edge import root_sum_and_product, stability_edge
from samdiag.theory.saddle import escape_excess

Ascent = Literal["full", "independent", "same"]  # where the ascent gradient's samples come from


def noise_variance(
    noise: float, batch_size: float, radius: float, lam: float, *, ascent: Ascent, ascent_batch: float | None = None
) -> float:
    """Per-step gradient-noise variance c' along q, in units of gradient squared, for the three ways to run SAM.

    full (ascent on the full gradient): c; independent (two batches): c + rho_eff²lam²·qᵀCq/m; same (one batch for
    both, the practice): c(1 + rho_eff·lam)². c = qᵀCq/B.

    Assumes noise that does not depend on x, and for normalised SAM that rho_eff does not fluctuate. m-SAM is "same":
    its micro-batches' noise averages to the same c(1 + rho_eff·lam)², with rho_eff at the micro-batch.

    Args:
        noise: qᵀCq, per-sample gradient variance along q, measured.
        batch_size: B, samples behind the descent gradient.
        radius: effective radius rho_eff.
        lam: curvature along q.
        ascent: where the ascent gradient's samples come from.
        ascent_batch: m, samples behind an independent ascent gradient; None: B.

    Source: theory C1 (checked by simulation).
    """
    if math.isinf(radius):
        return noise / batch_size if ascent == "full" else math.inf
    c, shift = noise / batch_size, radius * lam
    match ascent:
        case "full":
            return c
        case "independent":
            return c + shift**2 * noise / (ascent_batch or batch_size)
        case "same":
            return c * (1.0 + shift) ** 2
        case _:
            assert_never(ascent)


def step_noise(noise: float, batch_size: float, radius: float, lam: float, *, same_batch: bool = True) -> float:
    """Per-step gradient-noise variance c' along q: (qᵀCq/B)(1 + rho_eff·lam)² with one batch for both gradients, the
    practice.

    With `same_batch` False (ascent on the full gradient) it is qᵀCq/B; `noise_variance` has all three ways. The papers'
    C = [H]⁺ is off by a factor of 2 to some hundred on small networks (`quoted.fisher_noise`): qᵀCq is measured.

    Source: theory C1; KIM Thm 2 as quoted uses the surrogate's drift lam(1 + rho·lam)² and would never capture a
    saddle (`quoted.variance_of_theorem_2`).
    """
    if math.isinf(radius):
        return math.inf
    return noise_variance(noise, batch_size, radius, lam, ascent="same" if same_batch else "full")


def roots(mu: complex, lr: float, momentum: float, *, nesterov: bool = False) -> tuple[complex, complex]:
    """Roots r+ and r− of r² − a r + c, the larger modulus first; heavy ball a = 1 + gamma − eta·mu, c = gamma.

    Source: theory C2; Nesterov's a and c in `edge.root_sum_and_product`.
    """
    a, c = root_sum_and_product(mu, lr, momentum, nesterov=nesterov)
    root = cmath.sqrt(a * a - 4.0 * c)
    pair = sorted(((a + root) / 2.0, (a - root) / 2.0), key=abs, reverse=True)
    return pair[0], pair[1]


def variance(steps: int, mu: float, lr: float, momentum: float, noise: float, *, nesterov: bool = False) -> float:
    """V_N = eta² c' Σ_{k<N} h_k²: exact variance after N steps from rest at the critical point.

    h_k is what a unit of gradient noise does to x k + 1 steps later, in units of eta. Heavy ball h_k = p_k, Nesterov
    h_k = (1 + gamma) p_k − gamma p_{k−1}, with p_k = (r+^{k+1} − r−^{k+1})/(r+ − r−), here by its recurrence, which
    has no 0/0 at r+ = r−. Nesterov's noise enters twice: directly and through the velocity.

    Assumes noise that is white, of constant variance, and a quadratic. Infinite where it overflows.

    Source: theory C2 (against simulation and the two stochastic cases); (D) for Nesterov.
    """
    total = escape_profile(steps, mu, lr, momentum, nesterov=nesterov)[1]
    return total * lr**2 * noise if noise > 0 else 0.0


def escape_profile(steps: int, mu: float, lr: float, momentum: float, *, nesterov: bool = False) -> tuple[float, float]:
    """Amplitude x_N/x_0 of the mode started at rest, and Σ_{k<N} h_k² (see `variance`); ±inf where they overflow.

    Source: theory C2, D4; x_N = x_0 (p_N − gamma p_{N−1}) for heavy ball and Nesterov alike.
    """
    profile = _profile(mu, lr, momentum, nesterov)
    return next(itertools.islice(profile, steps, None))


def _profile(mu: float, lr: float, momentum: float, nesterov: bool) -> Iterator[tuple[float, float]]:
    """(x_N/x_0, Σ_{k<N} h_k²) for N = 0, 1, 2, …; stays at its last sign of infinity once it overflows."""
    a, c = (v.real for v in root_sum_and_product(mu, lr, momentum, nesterov=nesterov))
    now, before = (1.0 + momentum, momentum) if nesterov else (1.0, 0.0)
    earlier, p, total = 0.0, 1.0, 0.0
    while math.isfinite(p) and math.isfinite(earlier):
        yield p - momentum * earlier, total
        h = now * p - before * earlier
        total += h * h
        earlier, p = p, a * p - c * earlier
    while True:
        yield math.copysign(math.inf, p if not math.isnan(p) else earlier), math.inf


def escape_steps(
    *,
    offset: float,
    noise: float,
    exit_distance: float,
    mu: float,
    lr: float,
    momentum: float,
    max_steps: int = 100_000,
    nesterov: bool = False,
) -> int | None:
    """First N with x_0²·growth² + V_N ≥ exit_distance², or None when that takes more than `max_steps` (or never
    happens).

    Args:
        offset: |x_0|, distance from the saddle along q now, in parameter units.
        noise: per-step gradient-noise variance along q (see `step_noise`).
        exit_distance: where q's share of the gradient has grown to the whole of it, G/|lam_min|.
        mu: shifted eigenvalue along q; the direction is left only if mu < 0.
        lr: step size; with dampening `edge.heavy_ball_step_size`.
        momentum: gamma.
        max_steps: where the search ends.
        nesterov: PyTorch's Nesterov momentum.

    Source: theory D4 (against simulation: 498/498, 69/69, 31/31, 23/23).
    """
    if mu >= 0 or not math.isfinite(mu) or exit_distance <= 0 or (offset == 0 and noise == 0):
        return None
    target, scale = exit_distance**2, lr * lr * noise
    profile = _profile(mu, lr, momentum, nesterov)
    for step, (growth, total) in enumerate(itertools.islice(profile, max_steps + 1)):
        reached = (offset * growth) ** 2 if offset and abs(growth) < 1e150 else (math.inf if offset else 0.0)
        if reached + (scale * total if noise else 0.0) >= target:
            return step
    return None


def stationary_variance(mu: float, lr: float, momentum: float, noise: float, *, nesterov: bool = False) -> float:
    """V_∞, what `variance` tends to along a stable direction; infinite where eta·mu is outside (0, edge).

    With s = eta·mu and sigma² = eta²c'. Heavy ball: sigma²(1 + gamma)/((1 − gamma) s (2(1 + gamma) − s)). Nesterov:
    sigma²(1 + gamma + gamma(1 + 2gamma)s)/(s (1 − gamma + gamma·s)(2(1 + gamma) − (1 + 2gamma)s)). Both tend to
    eta·c'/(2 mu (1 − gamma)) for small s.

    Source: theory C2; (D) for Nesterov, the variance of an ARMA(2,1) process (checked by simulation).
    """
    s, scale = lr * mu, lr**2 * noise
    if not 0 < s < stability_edge(momentum, nesterov=nesterov):
        return math.inf
    if nesterov:
        room = 2.0 * (1.0 + momentum) - (1.0 + 2.0 * momentum) * s
        upper = 1.0 + momentum + momentum * (1.0 + 2.0 * momentum) * s
        return scale * upper / (s * (1.0 - momentum + momentum * s) * room)
    return scale * (1.0 + momentum) / ((1.0 - momentum) * s * (2.0 * (1.0 + momentum) - s))


def early_variance(steps: int, lr: float, momentum: float, noise: float, *, nesterov: bool = False) -> float:
    """V_N of free diffusion (mu = 0), exact for N steps from rest; the law of V_N while N·eta|mu| ≪ 1 − gamma.

    eta²c'/(1−gamma)²·(N − 2gamma^s(1−gamma^N)/(1−gamma) + gamma^2s(1−gamma^2N)/(1−gamma²)), s = 1 (Nesterov 2): from
    N³/3 for N ≪ 1/(1−gamma), where momentum does not matter, to N/(1−gamma)² beyond. In between it follows (1−gamma)⁻³
    (τ − (1−e) − (1−e)²/2), τ = (1−gamma)N, e = exp(−τ); KIM Thm 3 has τ + (1−e)²/2 (see `quoted`).

    Source: theory C4 (early law); (D) the exact sum.
    """
    gap, tail, first = 1.0 - momentum, momentum**steps, momentum ** (2 if nesterov else 1)
    total = steps - 2.0 * first * (1.0 - tail) / gap + first**2 * (1.0 - tail**2) / (1.0 - momentum**2)
    return lr**2 * noise * total / gap**2


def escape_exponent(mu: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """log r+, growth of ln|x| per step along mu < 0: eta|mu|/(1−gamma) while that is ≪ 1 − gamma; 0 for mu ≥ 0.

    Never above √(eta|mu|), however close momentum is to 1 (Nesterov: log(1 + eta|mu|) + √(eta|mu|)).

    Source: theory A3, C4 (rate capped near √(eta|mu|)); (D) the bound.
    """
    return math.log1p(escape_excess(mu, lr, momentum, nesterov=nesterov)) if mu < 0 else 0.0


def late_variance(steps: int, mu: float, lr: float, momentum: float, noise: float, *, nesterov: bool = False) -> float:
    """V_N by the growing root alone, mu < 0: eta²c'·w²·(r+^{2N} − 1)/(r+² − 1); exact for gamma = 0.

    w = r+/(r+ − r−), Nesterov ((1+gamma) r+ − gamma)/(r+ − r−). The usable law of momentum: about N/(1−gamma)² at first
    and exp(2|mu|t/(1−gamma)), t = eta·N, later. It leaves out the start of the velocity, so that it is too large by
    about 3/2·1/(1−gamma) steps' worth of diffusion. Infinite where it overflows.

    Source: theory C4 (usable law).

    Raises:
        ValueError: mu ≥ 0: there is no growing root.
    """
    if mu >= 0:
        raise ValueError(f"mu = {mu} is not negative: nothing grows along this direction")
    excess = escape_excess(mu, lr, momentum, nesterov=nesterov)
    distance = excess + -lr * mu / excess if excess > 0 else 1.0 - momentum  # r+ − r−: (r+ − 1)(1 − r−) = eta|mu|
    weight = (1.0 + excess * (1.0 + momentum if nesterov else 1.0)) / distance
    exponent = 2.0 * steps * math.log1p(excess)
    if exponent > 700:  # exp overflows at 709
        return math.inf
    growth = math.expm1(exponent) / (excess * (2.0 + excess)) if excess > 0 else float(steps)
    return lr**2 * noise * weight**2 * growth


def noise_scale(noise_trace: float, grad_norm_squared: float) -> float:
    """B_simple = tr C/|g|²: the batch size at which noise and signal are equal; infinite at a critical point.

    |g|² must be without the noise's own share (`estimators.debiased_grad_norm_squared`).

    Source: McCandlish et al., An Empirical Model of Large-Batch Training, Sec. 2; theory C5.
    """
    return noise_trace / grad_norm_squared if grad_norm_squared > 0 else math.inf
