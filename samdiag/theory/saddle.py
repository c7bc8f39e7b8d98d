"""Saddles under SAM: which negative directions are captured, and how fast the others are left."""

from __future__ import annotations

import math
from collections.abc import Iterable

from samdiag.theory.edge import stability_edge


def effective_radius(rho: float, grad_norm: float, noise_trace: float = 0.0, ascent_batch: float = math.inf) -> float:
    """rho_eff of normalised SAM: rho/√(|g|² + tr C/m); infinite at an exact critical point without noise.

    m = `ascent_batch`, the samples behind the ascent gradient (infinite: full batch). The square root stands for the
    mean over batches of (1 − (u·q)²)/|g_b| (`estimators.measured_effective_radius`), which needs some effective noise
    dimensions: with isotropic noise it is 13, 9 and 3 % too large in 2, 3 and 10 of them.

    Source: theory A, head (D; checked). USAM's effective radius is rho itself.
    """
    scale = math.sqrt(max(grad_norm, 0.0) ** 2 + max(noise_trace, 0.0) / ascent_batch)
    return rho / scale if scale > 0 else math.inf


def shifted_eigenvalue(lam: float, radius: float, weight_decay: float = 0.0) -> float:
    """mu = lam(1 + rho_eff·lam) + wd: the curvature that SAM's step sees along an eigenvector of curvature lam.

    Exact on a quadratic for USAM, and for normalised SAM while |g| is what it is now; the decay is applied by the
    optimiser (decay inside the objective shifts lam instead). Infinite where rho_eff is: at the critical point itself.

    Source: KIM Thm 1 (drift Λ + rho Λ²); theory A1.
    """
    if math.isinf(radius):
        return math.inf if lam != 0 else weight_decay
    return lam * (1.0 + radius * lam) + weight_decay


def mu_range(low: float, high: float, radius: float, weight_decay: float = 0.0) -> tuple[float, float]:
    """Smallest and largest mu over lam in [low, high]; the parabola's vertex −1/(2 rho_eff) counts where it is inside.

    Turns the error bar of an eigenvalue into that of mu.

    Source: theory A1.
    """
    ends = [shifted_eigenvalue(low, radius, weight_decay), shifted_eigenvalue(high, radius, weight_decay)]
    if 0 < radius < math.inf and low < -1.0 / (2.0 * radius) < high:
        ends.append(weight_decay - 1.0 / (4.0 * radius))
    return min(ends), max(ends)


def usam_window(
    eigenvalues: Iterable[float], lr: float, momentum: float, *, nesterov: bool = False, weight_decay: float = 0.0
) -> tuple[float, float]:
    """Open interval of rho in which USAM is captured by a saddle with these eigenvalues (empty when low ≥ high).

    low = max over negative lam of 1/|lam|: the negative eigenvalue of *smallest* magnitude binds. KIM Thm 1 states the
    interval with lambda_1 alone, which is right at index 1 only (`quoted.interval_of_theorem_1`). high = min over lam
    of (2(1+gamma)/eta − lam − wd)/lam²; Nesterov 2(1+gamma)/(1+2gamma). Weight decay lowers `low` (`capture_radius`).

    Around a critical point, on the quadratic there. For normalised SAM read rho as rho_eff.

    Source: KIM Thm 1, corrected; theory A2.
    """
    edge = stability_edge(momentum, nesterov=nesterov)
    values = list(eigenvalues)
    low = max((capture_radius(v, weight_decay) for v in values if v < 0), default=0.0)
    high = min(((edge / lr - v - weight_decay) / v**2 for v in values if v**2 > 0), default=math.inf)  # v² underflows
    return low, high


def capture_radius(lam: float, weight_decay: float = 0.0) -> float:
    """rho_eff above which the direction of curvature lam < 0 is captured: (1 − wd/|lam|)/|lam|, 0 if weight decay
    alone does it.

    The sign of mu alone: momentum never changes it, and for the upper end (the edge of stability) see `usam_window`.

    Source: theory A2.
    """
    return max(0.0, 1.0 - weight_decay / abs(lam)) / abs(lam)


def escape_rate(lam: float, radius: float, weight_decay: float = 0.0) -> float:
    """Rate −mu at which a direction of curvature lam < 0 is left, in units of 1/eta; negative: captured.

    For small steps without momentum; the factor of one real step is `escape_factor`.

    Source: theory A4.
    """
    return -shifted_eigenvalue(lam, radius, weight_decay)


def fastest_escape_rate(largest: float, radius: float, weight_decay: float = 0.0) -> float:
    """Upper bound of the escape rate over every negative eigenvalue of magnitude at most `largest`, in units of 1/eta.

    For spectra of which only the ends are known. The rate |lam|(1 − rho_eff|lam|) − wd peaks at |lam| = 1/(2 rho_eff):
    no saddle is left faster than 1/(4 rho_eff).

    Source: theory A4 (D).
    """
    if math.isinf(radius):
        return 0.0
    peak = largest if radius == 0 else min(largest, 1.0 / (2.0 * radius))
    return max(0.0, escape_rate(-peak, radius, weight_decay))


def retained_escape_rate(eigenvalues: Iterable[float], radius: float, weight_decay: float = 0.0) -> float:
    """Share of SGD's escape rate that SAM keeps: max |lam|(1 − rho_eff|lam|) − wd over lam < −wd, over |lam_min| − wd.

    0 where every such direction is captured, NaN where SGD has none to leave by. The fastest direction under SAM need
    not be lam_min: the rate peaks at |lam| = 1/(2 rho_eff).

    Small steps; with finite ones and momentum see `escape_slowdown`. Gives the share at one rho_eff; while |g| changes
    so does the share.

    Source: theory A4.
    """
    rates = [(escape_rate(v, 0.0, weight_decay), escape_rate(v, radius, weight_decay)) for v in eigenvalues]
    sgd = max((rate for rate, _ in rates), default=0.0)
    return max(0.0, *(kept for rate, kept in rates if rate > 0)) / sgd if sgd > 0 else math.nan


def escape_slowdown(
    eigenvalues: Iterable[float],
    radius: float,
    lr: float,
    momentum: float,
    weight_decay: float = 0.0,
    *,
    nesterov: bool = False,
) -> float:
    """Factor by which SAM leaves more slowly than SGD: ratio of the exponents log r+ per step of the fastest direction.

    1/`retained_escape_rate` bent by momentum, whose exponent grows like a square root at small gaps 1 − gamma. Infinite
    where every direction is captured, NaN where SGD has none to leave by.

    Source: theory A3, A4.
    """
    values = list(eigenvalues)
    share = retained_escape_rate(values, radius, weight_decay)
    if math.isnan(share) or share == 0:
        return math.nan if math.isnan(share) else math.inf
    sgd = -min(values) - weight_decay
    fast, slow = (math.log1p(escape_excess(rate, lr, momentum, nesterov=nesterov)) for rate in (sgd, share * sgd))
    return fast / slow if slow > 0 else 1.0 / share  # underflow


def escape_excess(lam: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """r+ − 1, the growth per step less one along a direction with mu = `lam` < 0, of which only |mu| is used.

    The positive root of δ² + b·δ − s, s = eta|mu|, b = 1 − gamma − s (Nesterov 1 − gamma − s − gamma·s), in a form that
    keeps its digits where s is far below 1e-16.

    Source: theory A3; (D) r = 1 + δ put into the characteristic polynomial.
    """
    s = lr * abs(lam)
    b = 1.0 - momentum - s * (1.0 + momentum if nesterov else 1.0)
    root = math.sqrt(b * b + 4.0 * s)
    return 2.0 * s / (b + root) if b > 0 else (root - b) / 2.0


def escape_factor(lam: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """Growth per step r+ = (a + √(a² − 4c))/2 along a direction with mu = `lam` < 0, of which only |mu| is used.

    Heavy ball a = 1 + gamma + eta|mu|, c = gamma; Nesterov a = (1 + gamma)(1 + eta|mu|), c = gamma(1 + eta|mu|).
    Reached after some 1/(1 − gamma) steps: a run that starts at rest lags behind at first.

    Source: theory A3.
    """
    return 1.0 + escape_excess(lam, lr, momentum, nesterov=nesterov)


def without_replacement(batch_size: float, population: int | None) -> float:
    """The batch whose noise tr C(1/B − 1/N) is that of `batch_size` samples drawn with replacement: 1/(1/B + 1/N).

    For epochs of shuffled batches taken one at a time; their noises then also cancel over an epoch, which this leaves
    out.

    Source: finite-population sampling; theory C5.
    """
    return 1.0 / (1.0 / batch_size + 1.0 / population) if population and batch_size > 0 else batch_size


def critical_batch_size(
    noise_trace: float, rho: float, lam: float, grad_norm: float, population: int | None = None
) -> float:
    """B_crit = tr C/((rho|lam|)² − |g|²): above it normalised SAM is captured along lam, below it the noise frees it.

    Infinite when |g| ≥ rho|lam|: then it is free at every batch size. This, not the 1/B prefactor of the diffusion
    term, is how small batches rescue SAM. In m-SAM it is the micro-batch that is compared with it (checked: 64 of 1024
    frees, 512 of 1024 captures at B_crit 192).

    For the closed form of `effective_radius`, so for noise of several effective dimensions, and for normalised SAM;
    USAM has none.

    Source: theory A7 (checked).
    """
    bracket = (rho * lam) ** 2 - grad_norm**2
    return without_replacement(noise_trace / bracket, population) if bracket > 0 else math.inf


def captured_while_bouncing(
    lam_negative: float, lam_max: float, lr: float, momentum: float, *, nesterov: bool = False
) -> bool:
    """Whether lam_j is captured while full-batch normalised SAM bounces along lam_max; independent of rho.

    |lam_j|(2(1+gamma)/eta − lam_max) > lam_max²; Nesterov 2(1+gamma)/(1+2gamma). Learning-rate decay creates such
    traps.

    On a quadratic, on the period-2 bounce, with an offset along lam_j far below it and |lam_j| < lam_max. A longer
    cycle (`cycles.bounce_cycles`) keeps up a larger gradient and can free what this says is captured. With |lam_j| >
    lam_max that direction does not shrink but bounces itself, inside the trap (`trap.trapped_ball_step_size`) or out of
    it: lam = (1, −4), eta = 0.3, no momentum, leaves.

    Source: theory A6 (checked).
    """
    return abs(lam_negative) * (stability_edge(momentum, nesterov=nesterov) / lr - lam_max) > lam_max**2


def freeing_momentum(lam: float, lr: float, *, nesterov: bool = False) -> float:
    """Momentum above which full-batch normalised SAM can leave a pure one-dimensional maximum of curvature `lam`.

    With s = eta|lam|: heavy ball 1 − s; Nesterov (p + 1 − s)/(1 + s), p = 2s(1 − √(1 − (1 − s)(1 − s²)))/(1 − s²),
    which is higher: 0.994 against 0.98 at s = 0.02, 0.847 against 0.8 at 0.2. 0 from s = 1 on.

    Derivation: beyond |x| = rho the force points outward, so leaving means to cross from one side's repelling point
    ±rho beyond the other's. The run that comes down the unstable manifold of +rho and takes its last step on that side
    from 0+ gets across iff r+ + r− > 2 (heavy ball), iff r+((1 + gamma)(1 + s) − 2) > 2·gamma·s (Nesterov), r± the
    roots for curvature −|lam|. Necessary to the third digit in simulation; for every start to leave it takes more
    (some 0.08 for the heavy ball).

    Source: theory A8 (D, simulated).
    """
    s = lr * abs(lam)
    if s >= 1.0:
        return 0.0
    if not nesterov:
        return 1.0 - s
    p = 2.0 * s * (1.0 - math.sqrt(1.0 - (1.0 - s) * (1.0 - s * s))) / (1.0 - s * s)
    return (p + 1.0 - s) / (1.0 + s)


def momentum_frees_maximum(lam: float, lr: float, momentum: float, *, nesterov: bool = False) -> bool:
    """Whether momentum can carry full-batch normalised SAM out of a pure maximum: gamma above `freeing_momentum`.

    Holds for a maximum direction alone; a single positive direction is enough to void it, and distinct curvatures
    hold somewhat beyond it.

    Source: theory A8 (D, simulated).
    """
    return momentum > freeing_momentum(lam, lr, nesterov=nesterov)
