"""Bounds on rho, the batch size, momentum and the learning rate; how fast a radius may decay."""

from __future__ import annotations

import math

from samdiag.theory.edge import largest_multiplier, stability_edge
from samdiag.theory.saddle import escape_factor, shifted_eigenvalue, without_replacement

KEPT_FRACTION = 0.5  # kappa: share of SGD's escape rate that a setting must keep (theory D1 default)
RIDGE_MARGIN = 0.9  # rho ≤ 0.9 s*: room for the ridge's own error (theory D1)
MAX_MOMENTUM = 0.99  # cap of theory D3
NOISE_TEMPERATURE_FACTOR = 4.0  # eta/(B(1−gamma)) may grow by at most this (theory D3)
DECAY_PACE = 5.0  # times slower than what follows it relaxes: it lags behind by 1/(1 − 1/5), a quarter


def saddle_rho(
    grad_scale: float | None, lam_min: float, kept: float = KEPT_FRACTION, weight_decay: float = 0.0
) -> float:
    """Largest rho that keeps the fraction `kept` of SGD's escape rate: (1 − kappa)G/|lam_min|; G = None for USAM.

    With weight decay the kept rate is kappa(|lam_min| − wd), which gives (1 − kappa)(|lam| − wd)/lam².

    Speaks of lam_min alone, for small steps: speed, not capture of every direction (`saddle.usam_window`). G is the
    mean norm of the batches' gradients; it falls as training goes on, and the bound with it.

    Source: theory D1.
    """
    if lam_min**2 == 0:
        return math.inf
    bound = (1.0 - kept) * max(abs(lam_min) - weight_decay, 0.0) / lam_min**2
    return bound if grad_scale is None else bound * grad_scale


def edge_rho(
    grad_scale: float | None,
    lam_max: float,
    lr: float,
    momentum: float,
    weight_decay: float = 0.0,
    *,
    nesterov: bool = False,
) -> float:
    """Largest rho below the edge of stability: G(2(1+gamma)/eta − lam_max − wd)/lam_max².

    Nesterov 2(1+gamma)/(1+2gamma) in place of 2(1+gamma). 0 where the edge is passed without SAM.

    On a quadratic, with G held up by the noise or by other directions. Full-batch SAM along lam_max alone bounces at
    every rho instead (`edge.bounce_amplitude`).

    Source: theory D1, with the weight decay of A1.
    """
    if lam_max <= 0 or lam_max**2 == 0:
        return math.inf
    bound = max(stability_edge(momentum, nesterov=nesterov) / lr - lam_max - weight_decay, 0.0) / lam_max**2
    return bound if grad_scale is None else bound * grad_scale


def freeing_batch_size(
    noise_trace: float,
    rho: float,
    lam_min: float,
    grad_norm: float,
    kept: float = KEPT_FRACTION,
    weight_decay: float = 0.0,
    population: int | None = None,
) -> float:
    """Largest B at which the fraction `kept` of the escape rate survives: tr C/((rho|lam_min|/(1−kappa))² − |g|²).

    Infinite when the bracket is not positive: every batch size will do. With weight decay |lam_min| is
    lam²/(|lam| − wd), as in `saddle_rho`; 0 where SGD does not leave either. Normalised SAM only; for USAM B never
    frees.

    Source: theory D2.
    """
    net = abs(lam_min) - weight_decay
    if net <= 0:
        return 0.0
    bracket = (rho * lam_min**2 / net / (1.0 - kept)) ** 2 - grad_norm**2
    return without_replacement(noise_trace / bracket, population) if bracket > 0 else math.inf


def matching_momentum(
    lam_min: float, mu: float, lr: float, momentum: float, weight_decay: float = 0.0, *, nesterov: bool = False
) -> float | None:
    """gamma* with which SAM leaves as fast as SGD with the present momentum; None when no gamma < 1 does.

    Heavy ball: gamma* = r0(1 − eta|mu|/(r0 − 1)), infeasible for mu ≥ 0 or eta|mu| ≤ (r0 − 1)²/r0. Nesterov (both
    optimisers), with s = 1 + eta|mu|: gamma* = r0(r0 − s)/(s(r0 − 1)), infeasible for eta|mu| ≤ (r0 − 1)²/(2r0 − 1).
    r0 is SGD's escape factor (at lam + wd). Matches the growth per step, not the noise that starts it, and only along
    lam_min; a gamma this close to 1 may be beyond `noise_momentum_cap`.

    Source: theory D3; (D) for Nesterov, the root r0 put into its characteristic polynomial.
    """
    if mu >= 0:
        return None
    r0 = escape_factor(max(abs(lam_min) - weight_decay, 0.0), lr, momentum, nesterov=nesterov)
    pull = lr * abs(mu)
    if r0 <= 1 or pull <= (r0 - 1) ** 2 / (2 * r0 - 1 if nesterov else r0):
        return None
    if nesterov:
        return r0 * (r0 - 1.0 - pull) / ((1.0 + pull) * (r0 - 1.0))
    return r0 * (1.0 - pull / (r0 - 1.0))


def noise_momentum_cap(momentum: float, batch_ratio: float = 1.0) -> float:
    """Largest gamma that keeps the noise temperature eta/(B(1−gamma)) within 4 times its present value, and ≤ 0.99.

    The temperature is what sets the stationary spread along positive curvature (`diffusion.stationary_variance`, small
    steps), for Nesterov too. The factor 4 is a choice.

    Args:
        momentum: the present gamma.
        batch_ratio: new batch size over old one.

    Source: theory D3.
    """
    return max(0.0, min(MAX_MOMENTUM, 1.0 - (1.0 - momentum) / (NOISE_TEMPERATURE_FACTOR * batch_ratio)))


def edge_lr(
    lam: float, momentum: float, radius: float = 0.0, weight_decay: float = 0.0, *, nesterov: bool = False
) -> float:
    """Step size at the edge of stability along curvature lam: 2(1+gamma)/mu, mu = lam(1 + rho_eff·lam) + wd.

    Nesterov 2(1+gamma)/(1+2gamma) in place of 2(1+gamma). radius = 0 gives plain gradient descent's edge, beyond which
    every variant is thrown away. Infinite for mu ≤ 0, 0 for an infinite radius. PyTorch's lr is that over
    1 − dampening.

    Source: theory A1; A9 for SAM's own.
    """
    mu = shifted_eigenvalue(lam, radius, weight_decay)
    return stability_edge(momentum, nesterov=nesterov) / mu if mu > 0 else math.inf


def releasing_lr(lam_negative: float, lam_max: float, momentum: float, *, nesterov: bool = False) -> float:
    """Step size above which the bounce along lam_max no longer captures lam_j: |lam_j|·2(1+gamma)/(lam_max² +
    |lam_j|lam_max).

    The share |lam_j|/(lam_max + |lam_j|) of the edge of stability; the condition of `saddle.captured_while_bouncing`
    solved for eta. Infinite without a positive lam_max: there is no bounce.

    Source: theory A6.
    """
    if lam_max <= 0:
        return math.inf
    size = abs(lam_negative)
    return stability_edge(momentum, nesterov=nesterov) / lam_max * size / (lam_max + size)


def decay_steps(share: float, lam: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """Steps in which rho may fall geometrically to `share` of itself while a mode of curvature lam follows.

    DECAY_PACE·ln(1/share)/ln(1/|r+|), r+ the mode's larger multiplier: rho falls DECAY_PACE times more slowly than the
    mode relaxes, so that the mode, which settles in proportion to rho, is about a quarter larger than there. Infinite
    where it does not relax.

    Source: (D) x' = −a(x − c·rho), rho = exp(−bt): x/(c·rho) → a/(a − b); multipliers of theory A1.
    """
    multiplier = largest_multiplier(lam, lr, momentum, nesterov=nesterov)
    if not 0 < multiplier < 1:
        return 1.0 if multiplier == 0 else math.inf
    return DECAY_PACE * math.log(1.0 / share) / -math.log(multiplier)
