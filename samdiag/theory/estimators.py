"""What batches say: gradient noise, the gradient's norm without it, and the effective radius along a direction."""

from __future__ import annotations

import math
from collections.abc import Sequence


def noise_trace(mean_square_deviation: float, batch_size: float, num_batches: int) -> float:
    """tr C = B·mean|g_b − ḡ|²·K/(K − 1): trace of the per-sample gradient covariance from K batches of B samples.

    Unbiased for independent batches drawn with replacement; NaN for K < 2, which says nothing.

    Args:
        mean_square_deviation: mean over the K batches of |g_b − ḡ|², ḡ the mean of the g_b.
        batch_size: B.
        num_batches: K.

    Source: theory C5 (checked by simulation).
    """
    return batch_size * mean_square_deviation * num_batches / (num_batches - 1) if num_batches > 1 else math.nan


def debiased_grad_norm_squared(
    mean_grad_norm_squared: float, noise: float, batch_size: float, num_batches: int
) -> float:
    """|g|² = |ḡ|² − tr C/(BK), 0 where that is negative: the noise in ḡ adds its own length to it.

    Unbiased before the cut at 0 (which biases it upwards near a critical point).

    Args:
        mean_grad_norm_squared: |ḡ|² of the mean over all K batches.
        noise: tr C, see `noise_trace`.
        batch_size: B.
        num_batches: K.

    Source: theory C5 (checked by simulation).
    """
    return max(mean_grad_norm_squared - noise / (batch_size * num_batches), 0.0)


def measured_effective_radius(rho: float, norms: Sequence[float], overlaps: Sequence[float]) -> tuple[float, float]:
    """rho_eff along q from batches, rho·mean[(1 − (u_b·q)²)/|g_b|], with its standard error (NaN for one batch).

    It is the linear response of E[rho·u_b] along q to the mean gradient along q: what SAM adds to the drift is
    lam·rho_eff·lam. Where q·g is not small against the noise along q the response is not linear: noise-free, with q
    along g, this reads 0 and SAM's own factor is rho/|g|. `saddle.effective_radius` is the closed approximation.

    Args:
        rho: radius of SAM.
        norms: |g_b| of each batch (of each micro-batch in m-SAM).
        overlaps: (u_b·q)² of each, u_b = g_b/|g_b|, in the same order.

    Raises:
        ValueError: there is no batch, or the two lists differ in length.

    Source: theory A, head (D; checked by simulation).
    """
    if not norms or len(norms) != len(overlaps):
        raise ValueError(f"{len(norms)} norms and {len(overlaps)} overlaps: give one of each per batch")
    terms = [
        rho * (1.0 - overlap) / norm if norm > 0 else math.inf for norm, overlap in zip(norms, overlaps, strict=True)
    ]
    count = len(terms)
    mean = math.fsum(terms) / count
    if count < 2 or math.isinf(mean):
        return mean, math.nan
    return mean, math.sqrt(math.fsum((t - mean) ** 2 for t in terms) / (count - 1) / count)


def ascent_samples(batch_size: int | None, micro_batch: int | None = None) -> float:
    """m, the samples behind one ascent gradient: the micro-batch of m-SAM, else the batch; infinite for full batch.

    m decides the effective radius and with it capture (`saddle.effective_radius`, `saddle.critical_batch_size`); the
    noise of the update stays that of the whole batch, since the micro-batches' updates are averaged.

    Source: theory A7 (checked by simulation of m-SAM).
    """
    sizes = [size for size in (batch_size, micro_batch) if size is not None]
    return float(min(sizes)) if sizes else math.inf


def batch_gradient_norm(
    grad_norm: float, noise_trace: float, batch_size: float | None, population: int | None = None
) -> float:
    """G = √(|g|² + tr C(1/B − 1/N)), the norm of a batch's gradient in the mean square; |g| for full batches (None).

    Batches are drawn without replacement from a training set of N; None: a much larger one.

    Source: theory D, head.
    """
    share = 0.0 if batch_size is None else max(1.0 / batch_size - (1.0 / population if population else 0.0), 0.0)
    return math.sqrt(grad_norm**2 + noise_trace * share)
