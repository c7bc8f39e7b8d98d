"""How many steps a saddle takes to be left under given settings, or why that cannot be said."""

from __future__ import annotations

import functools
import math

from samdiag.advice.situation import Situation
from samdiag.theory.diffusion import escape_exponent, escape_steps, step_noise
from samdiag.theory.saddle import shifted_eigenvalue

MAX_STEPS = 100_000  # an escape predicted to take longer than this is no escape (theory D6: N_escape > N)


def steps_to_leave(
    situation: Situation,
    *,
    radius: float,
    momentum: float,
    batch: float | None,
    exit_gradient: float | None = None,
) -> int | None:
    """N_escape along lambda_min at effective radius `radius` (0: plain steps); None: not within MAX_STEPS, or unknown.

    Args:
        situation: the checkpoint, with a negative direction.
        radius: rho_eff under the settings that are asked about.
        momentum: gamma under them.
        batch: the descent's batch, whose noise starts the escape; None: full batch.
        exit_gradient: |q·g| at which it counts as left; the mean batch gradient by default.

    Source: theory D4.
    """
    m, bottom = situation.m, situation.bottom
    if bottom is None or m.step_size is None:
        return None
    lam = bottom.eigenvalue.value or 0.0
    leaving = situation.gradient_at(batch) if exit_gradient is None else exit_gradient
    return _searched(
        abs(bottom.offset / lam),
        descent_noise(situation, radius, batch),
        leaving / abs(lam),
        shifted_eigenvalue(lam, radius, m.weight_decay),
        m.step_size,
        momentum,
        m.nesterov,
    )


@functools.lru_cache(maxsize=64)  # the schedules of one prescription ask the same several times, and it is a search
def _searched(
    offset: float, noise: float, exit_distance: float, mu: float, lr: float, momentum: float, nesterov: bool
) -> int | None:
    return escape_steps(
        offset=offset,
        noise=noise,
        exit_distance=exit_distance,
        mu=mu,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        max_steps=MAX_STEPS,
    )


def descent_noise(situation: Situation, radius: float, batch: float | None) -> float:
    """Per-step gradient-noise variance along lambda_min of batches of `batch`; 0 for full batches or unknown noise."""
    bottom = situation.bottom
    if bottom is None or batch is None or bottom.noise is None:
        return 0.0
    return step_noise(bottom.noise, batch, radius, bottom.eigenvalue.value or 0.0)


def has_start(situation: Situation, batch: float | None) -> bool:
    """Whether anything pushes the run off the saddle: an offset along lambda_min, or the descent's noise."""
    bottom = situation.bottom
    offset = bottom is not None and not math.isclose(bottom.offset, 0.0, abs_tol=1e-12)
    return offset or descent_noise(situation, 0.0, batch) > 0


def steps_of_growth(situation: Situation, radius: float, momentum: float) -> int | None:
    """Steps in which the motion along lambda_min grows by e; None where it does not grow.

    Source: theory A3.
    """
    m, bottom = situation.m, situation.bottom
    if bottom is None or m.step_size is None:
        return None
    mu = shifted_eigenvalue(bottom.eigenvalue.value or 0.0, radius, m.weight_decay)
    exponent = escape_exponent(mu, m.step_size, momentum, nesterov=m.nesterov) if math.isfinite(mu) else 0.0
    return math.ceil(1.0 / exponent) if exponent > 1.0 / MAX_STEPS else None
