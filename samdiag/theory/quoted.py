"""What the papers print, where it is not what the optimiser does: each formula as quoted, beside the corrected one.

Everything here is KIM (arXiv 2301.06308v2). Its SAM is USAM, x+ = x + rho·∇f(x), as a diffusion in the time t = eta·N:
dw = −∇f(w+) dt + √(eta·C) dW, C = [H]⁺/B. Theorems 1 to 3 and Corollary 1 were checked against published summaries of
the paper, not against the paper itself [R]; Corollary 1 follows from Theorem 2 as given here term by term. The
corrected value is the exact variance of the update that is run (`diffusion.variance`), not another approximation.
`comparisons.comparisons` puts a checkpoint's numbers into both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from samdiag.theory.diffusion import noise_variance, variance
from samdiag.theory.saddle import shifted_eigenvalue


def interval_of_theorem_1(eigenvalues: Iterable[float]) -> tuple[float, float]:
    """Interval of rho in which KIM Thm 1 says the saddle attracts: (1/|lambda_1|, ∞), lambda_1 the lowest eigenvalue.

    Right for index 1 and gradient flow, which is what the theorem assumes. Beyond that the negative eigenvalue of
    *smallest* magnitude binds, and a finite step adds an upper end (`saddle.usam_window`).

    lam = (−3, −1, 5), rho = 0.5, eta = 0.01: quoted interval (0.33, ∞), captured; simulated USAM leaves along −1, whose
    threshold is 1. Of 1500 random saddles of index 2 to 4, rho above 1/|lambda_1| and log-uniform over a factor 10, the
    quoted interval misjudges 60 %; of those of index 1, none below the upper end.

    (0, 0) without negative eigenvalue: no saddle.

    Source: KIM Thm 1 as quoted; corrected in theory A2 [X outside index 1].
    """
    lowest = min(eigenvalues, default=0.0)
    return (1.0 / abs(lowest), math.inf) if lowest < 0 else (0.0, 0.0)


def fisher_noise(lam: float) -> float:
    """qᵀCq = |lam|, the per-sample gradient noise along an eigenvector of curvature lam that KIM assumes: C = [H]⁺.

    Exact for a well-specified likelihood at its optimum (linear regression: within 3 %); elsewhere measure qᵀCq. On
    2-4-1 tanh networks, at the start and after 150 steps, it is off by more than a factor 2 in 77 to 87 % of the
    directions and by up to 480; it is usually too large.

    Source: KIM Sec. on diffusion, after Xie et al.; theory C [X].
    """
    return abs(lam)


def drift_of_theorem_2(lam: float, rho: float) -> float:
    """lam(1 + rho·lam)², the rate of KIM Thm 2: the gradient of the surrogate f(x + rho∇f(x)), not SAM's update.

    It has the sign of lam for every rho, so no saddle would ever be captured, against Thm 1 of the same paper. SAM's
    own drift is lam(1 + rho·lam) (`saddle.shifted_eigenvalue`). lam = −1, rho = 2: quoted −1 (leaves as fast as SGD),
    true +1 (captured).

    Source: KIM Thm 2 as quoted; theory C1 [X].
    """
    return lam * (1.0 + rho * lam) ** 2


def variance_of_theorem_2(time: float, lam: float, rho: float, lr: float, batch_size: float) -> float:
    """eta|lam|/(2B·d)·(1 − exp(−2·d·t)), d = lam(1 + rho·lam)²: variance along q after t = eta·N, KIM Thm 2.

    Three things differ from the run: the drift (see `drift_of_theorem_2`), the noise qᵀCq = |lam|, and that the noise
    of the ascent gradient is left out (the practice, one batch for both, multiplies c by (1 + rho·lam)²).

    lam = −1, rho = 2, eta = 0.01, B = 64, N = 400: quoted 0.233, simulated and exact 7.85e-5 (captured, one batch for
    both) with the same noise qᵀCq = 1. At rho = 0.3: quoted 0.0079, exact 0.0144.

    Source: KIM Thm 2 as quoted; corrected in theory C1, C2 [X].
    """
    return lr * abs(lam) / batch_size * _mean_of_growth(drift_of_theorem_2(lam, rho), time)


def gap_of_corollary_1(time: float, lam: float, rho: float, lr: float, batch_size: float) -> float:
    """2·eta·t²|lam|³rho/B: how much less far SAM has spread than SGD at |lam|t ≪ 1, KIM Cor. 1.

    Source: KIM Cor. 1 as quoted; corrected in `early_gap`; theory C3 [X].
    """
    return 2.0 * lr * time**2 * abs(lam) ** 3 * rho / batch_size


def early_gap(
    time: float, lam: float, rho: float, lr: float, noise: float, *, ascent: Literal["full", "same"] = "same"
) -> float:
    """V_SGD − V_SAM to leading order in |lam|t ≪ 1, without momentum, for the update that is run.

    Ascent on the full gradient: eta·c·t²·rho·lam², which with c = |lam|/B is Cor. 1 with coefficient 1 in place of 2.
    One batch for both: eta·c·t·(1 − (1 + rho·lam)²), i.e. eta·c·t·rho|lam|(2 − rho|lam|) for lam < 0, larger by
    about 2/(|lam|t), and negative for lam > 0, where SAM spreads further than SGD.

    lam = −1, rho = 0.1, t = 0.01 in 100 steps, c = |lam|/B: gap over eta·t²|lam|³rho/B exact and simulated 1.01 with
    the full gradient, 193 with one batch; quoted 2. The gap falls like 1/B, as both variances do: larger batches do not
    widen it, and the ratio of the variances does not depend on B.

    Args:
        time: t = eta·N.
        lam: curvature along q.
        rho: radius of USAM.
        lr: eta.
        noise: c = qᵀCq/B.
        ascent: where the ascent gradient's samples come from.

    Source: theory C3 (checked by simulation).
    """
    if ascent == "full":
        return lr * noise * time**2 * rho * lam**2
    return lr * noise * time * (1.0 - (1.0 + rho * lam) ** 2)


def displacement_of_theorem_3(
    time: float,
    lam: float,
    rho: float,
    lr: float,
    momentum: float,
    batch_size: float,
    *,
    relaxation: Literal["printed", "mended"] = "printed",
) -> float:
    """Mean square displacement with momentum, KIM Thm 3: a (1−gamma)⁻³ term and Thm 2 with t → t/(1−gamma).

    C1(1 − exp(−C2(1−gamma)))²/((1−gamma)³B) + C3(1 − exp(−C4/(1−gamma)))/((1−gamma)B), C1 = eta²|lam|/2, C3 =
    eta|lam|/2d, C4 = 2·d·t, d as in Thm 2. Printed, C2 = eta/t = 1/N: the first term vanishes as N grows. With
    C2 = t/eta = N ("mended") it is what a velocity in equilibrium at the start would add. A run starts at rest: with
    e = exp(−N(1−gamma)) that term is then −(1 − e)²/2, and −(1 − e) is missing (`diffusion.early_variance`).

    gamma = 0.95, eta|lam| = 1e-6, in units of eta²c. N = 10: printed 4001, mended 4620, exact and simulated 276. N =
    100: 40080, 44030, 28600. N = 1000: 4.08e5, 4.12e5, 3.96e5. Read as a gain of (1−gamma)⁻³ = 8000 over no momentum,
    it is 1, 27.6 and 286 at N = 1, 10, 100, and (1−gamma)⁻² = 400 at most; later the rate is capped at √(eta|mu|). And
    with Thm 2's drift a captured direction is carried away: lam = −1, rho = 2, gamma = 0.9 stays (mu = +1).

    Source: KIM Thm 3 as quoted; corrected in theory C2, C4 [X].
    """
    gap = 1.0 - momentum
    relaxed = time / lr if relaxation == "mended" else lr / time
    first = lr**2 * abs(lam) / 2.0 * math.expm1(-relaxed * gap) ** 2 / gap**3
    second = lr * abs(lam) / gap * _mean_of_growth(drift_of_theorem_2(lam, rho), time / gap)
    return (first + second) / batch_size


def exact_variance(
    steps: int,
    lam: float,
    radius: float,
    lr: float,
    momentum: float,
    noise: float,
    batch_size: float,
    *,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> float:
    """What Theorems 2 and 3 are compared with: V_N with SAM's drift, one batch for both gradients, and real momentum.

    Args:
        steps: N.
        lam: curvature along q.
        radius: effective radius; rho for USAM.
        lr: eta.
        momentum: gamma.
        noise: qᵀCq, measured.
        batch_size: B.
        nesterov: PyTorch's Nesterov momentum.
        weight_decay: in the update.

    Source: theory C1, C2 (checked by simulation).
    """
    per_step = noise_variance(noise, batch_size, radius, lam, ascent="same")
    return variance(steps, shifted_eigenvalue(lam, radius, weight_decay), lr, momentum, per_step, nesterov=nesterov)


def _mean_of_growth(drift: float, time: float) -> float:
    """(1 − exp(−2·d·t))/(2d), t for d → 0, infinite where it overflows."""
    exponent = -2.0 * drift * time
    if exponent > 700:  # exp overflows at 709
        return math.inf
    return math.expm1(exponent) / (-2.0 * drift) if abs(exponent) > 1e-12 else time  # below, t to rounding
