"""What divides rho: the gradient's norm and, in mini-batch SAM, its noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samdiag.measure.gap import Gap
from samdiag.measure.opening import Opened

BELOW_NOISE = 0.1  # of tr C/n: a |g|² that cannot be told from 0 is not 0, and its error bar then leaves fates open


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What divides rho on average, √(|g|² + tr C/m) in the variant's metric: its value and its noise part squared."""

    value: float
    noise: float


def gradient_scale(gap: Gap, ready: Opened) -> Scale | None:
    """The scale of the ascent gradient; None for USAM, where nothing divides rho.

    |g|² is corrected for the sampling noise in it when the analysed samples are not the whole training set, and the
    noise of a batch drawn without replacement carries the finite-population factor.

    Source: theory A, head; C5.
    """
    norm = gap.ascent.normaliser
    if norm is None:
        return None
    noise, samples, population = gap.normalised_noise, ready.objective.num_samples, ready.population
    unseen = max(0.0, 1.0 - samples / population) if population else 1.0
    partial = population is None or samples < population
    sampling = noise / samples * unseen if partial else 0.0
    squared = max(norm**2 - sampling, BELOW_NOISE * sampling)
    ascent = 0.0
    if ready.ascent_batch is not None:
        ascent = noise / ready.ascent_batch * (1.0 - ready.ascent_batch / population if population else 1.0)
    return Scale(value=math.sqrt(squared + ascent), noise=ascent)


def effective_radius(rho: float, scale: Scale | None) -> float:
    """rho_eff = rho over the scale; rho itself for USAM; infinite where gradient and noise vanish.

    Source: theory A, head.
    """
    if scale is None:
        return rho
    return rho / scale.value if scale.value > 0 else math.inf
