"""What a subset's gradients exaggerate: the bias of norms, ratio and cosine, read off its two halves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from samdiag.curvature.objective import Objective
from samdiag.measure.ascent import Rule
from samdiag.measure.point import Point, gradient_of_half

# T(n) − T(∞) over T(n/2) − T(n): 1 where noise is small (order 1/n), 1/(√2 − 1) where it dominates (order 1/√n). The
# larger one is taken: on digits subsets of 400 it covers where the other leaves half of the truths outside.
SLOWEST = 1.0 / (math.sqrt(2.0) - 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Half:
    loss: float
    norm: float
    perturbed_loss: float
    perturbed_norm: float
    cosine: float


def subset_bias(
    objective: Objective, here: Point, there: Point, rule: Rule, *, population: int | None
) -> dict[str, float]:
    """Bound on the bias of each measured quantity, by name; empty for one batch or when the whole set was analysed.

    A mean gradient over n samples has |ḡ|² = |g|² + tr C/n in expectation, and SAM's u points along its noise as much
    as along g: the perturbed loss and gradient of a small subset are too large, the cosine too small. T(n/2) − T(n),
    from two halves measured with their own u, shows how much (see SLOWEST). For |g| the bias is known in closed form,
    |ḡ| − √(|ḡ|² − tr C/n). The objective is moved.

    Source: half-sampling (Quenouille); theory C5 for |g|.
    """
    samples = objective.num_samples
    unseen = 1.0 - samples / population if population else 1.0
    if len(objective.counts) < 2 or unseen <= 0:
        return {}
    halves = [_measure_half(objective, here, rule, half) for half in (0, 1)]
    norm, perturbed = here.norm, there.norm
    whole = _Half(
        loss=here.loss,
        norm=norm,
        perturbed_loss=there.loss,
        perturbed_norm=perturbed,
        cosine=float(torch.dot(here.gradient, there.gradient)) / (norm * perturbed) if norm * perturbed > 0 else 0.0,
    )

    def bias(read: Callable[[_Half], float]) -> float:
        return unseen * SLOWEST * (sum(read(h) for h in halves) / 2.0 - read(whole))

    noise = max(sum(h.norm**2 for h in halves) / 2.0 - norm**2, 0.0) * unseen  # tr C/n
    excess = norm - math.sqrt(max(norm**2 - noise, 0.0))
    share = (
        excess / norm if norm > 0 else 0.0
    )  # of |ḡ| that is noise: both halves may share it, so it bounds what they miss
    change = there.loss - here.loss
    ratio = bias(lambda h: h.perturbed_norm / h.norm if h.norm > 0 else 0.0)
    ratio = math.hypot(ratio, share * perturbed / norm if norm > 0 else 0.0)
    return {
        "perturbed_loss": math.hypot(bias(lambda h: h.perturbed_loss), share * change),
        "loss_change": math.hypot(bias(lambda h: h.perturbed_loss - h.loss), share * change),
        "grad_norm": excess,
        "perturbed_grad_norm": math.hypot(bias(lambda h: h.perturbed_norm), share * perturbed),
        "ratio": ratio,
        "update_ratio": ratio,
        "cosine": math.hypot(bias(lambda h: h.cosine), share / 2.0),
    }


def _measure_half(objective: Objective, here: Point, rule: Rule, half: int) -> _Half:
    loss, g = gradient_of_half(objective, here, half)
    objective.move_to(here.x + rule.displacement(here.x, g))
    perturbed_loss, shifted = objective.gradient(half=half)
    norms = float(torch.linalg.vector_norm(g)), float(torch.linalg.vector_norm(shifted))
    product = norms[0] * norms[1]
    return _Half(
        loss=loss,
        norm=norms[0],
        perturbed_loss=perturbed_loss,
        perturbed_norm=norms[1],
        cosine=float(torch.dot(g, shifted)) / product if product > 0 else 0.0,
    )
