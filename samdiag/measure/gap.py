"""The two gradients that SAM is about: ∇f(x) and ∇f(x + e(x)), with standard errors over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide
from samdiag.measure.ascent import Ascent, Rule
from samdiag.measure.bias import subset_bias
from samdiag.measure.point import Point, evaluate, project, squared_norms_in
from samdiag.measure.statistics import BatchValues, trace_of_noise
from samdiag.types import UNKNOWN, Estimate


@dataclass(slots=True)
class Gap:
    """The point, the perturbed point, and what relates them."""

    here: Point
    there: Point
    ascent: Ascent
    loss: Estimate
    perturbed_loss: Estimate
    loss_change: Estimate
    grad_norm: Estimate
    perturbed_grad_norm: Estimate
    ratio: Estimate
    cosine: Estimate
    update_ratio: Estimate
    noise_trace: Estimate
    normalised_noise: float  # tr of D^½ C D^½: the noise in the norm that divides rho


def measure_gap(objective: Objective, here: Point, rule: Rule, *, weight_decay: float, population: int | None) -> Gap:
    """Both gradients with their errors; the objective is left at `here`.

    One gradient where all samples are one batch. With more batches another one for the bias of a subset, and two more
    where the batches' gradients do not fit in memory.

    A sampling error has two parts, added in quadrature: the standard error over batches with e(x) held fixed, and the
    bias that a subset has because its gradient is longer than the whole set's and points elsewhere (`measure.bias`).

    Source: theory B1, F1; standard errors by the delta method on per-batch projections.
    """
    ascent = rule.at(here.x, here.gradient)
    there = evaluate(objective, here.x + ascent.displacement)
    if not math.isfinite(there.loss) or not bool(torch.isfinite(there.gradient).all()):
        raise CannotDecide(
            f"the loss or its gradient is not finite at SAM's perturbed point x + e, |e| = "
            f"{float(torch.linalg.vector_norm(ascent.displacement)):.3g}",
            "rho is too large for this loss: SAM itself would fail here; try a smaller --rho",
        )
    found = _estimates(objective, here, there, weight_decay, population)
    noise = trace_of_noise(here.losses.counts, here.squared_norms, here.norm**2)
    in_metric = noise
    if ascent.metric is not None:
        norm = float(torch.dot(here.gradient, ascent.metric * here.gradient))
        in_metric = trace_of_noise(here.losses.counts, squared_norms_in(objective, here, ascent.metric), norm)
    differences = BatchValues()
    if here.losses.counts == there.losses.counts:
        for count, a, b in zip(here.losses.counts, here.losses.values, there.losses.values, strict=True):
            differences.add(count, b - a)
    found["loss"] = Estimate(value=here.loss, sampling_error=here.losses.standard_error(population))
    found["perturbed_loss"] = Estimate(value=there.loss, sampling_error=there.losses.standard_error(population))
    found["loss_change"] = Estimate(
        value=there.loss - here.loss,
        error=4 * torch.finfo(objective.dtype).eps * (abs(here.loss) + abs(there.loss)),  # two losses, two roundings
        sampling_error=differences.standard_error(population) if differences.counts else None,
    )
    bias = subset_bias(objective, here, there, rule, population=population)
    objective.move_to(here.x)
    return Gap(
        here=here,
        there=there,
        ascent=ascent,
        **{name: _widened(estimate, bias.get(name, 0.0)) for name, estimate in found.items()},
        noise_trace=UNKNOWN if noise is None else Estimate(value=noise[0], sampling_error=noise[1]),
        normalised_noise=in_metric[0] if in_metric else 0.0,
    )


def _widened(estimate: Estimate, bias: float) -> Estimate:
    """The estimate with a bias of unknown remainder added to its standard error in quadrature."""
    if estimate.sampling_error is None:
        return estimate
    return replace(estimate, sampling_error=math.hypot(estimate.sampling_error, bias))


def _estimates(
    objective: Objective, here: Point, there: Point, weight_decay: float, population: int | None
) -> dict[str, Estimate]:
    """Norms, ratio and cosine; their standard errors from û·g_b, û+·g_b, û·g+_b, û+·g+_b of every batch."""
    a, b = here.norm, there.norm
    cosine = float(torch.dot(here.gradient, there.gradient)) / (a * b) if a > 0 and b > 0 else None
    norms = ratios = influences = None
    if len(here.losses.counts) > 1:
        directions = torch.stack([here.gradient / (a or 1.0), there.gradient / (b or 1.0)])
        u_g, v_g = project(objective, here, directions)
        u_h, v_h = project(objective, there, directions)
        if u_g.counts == u_h.counts:
            norms = (u_g.standard_error(population), v_h.standard_error(population))
            ratios = [h / (a or 1.0) - (b / a**2 if a > 0 else 0.0) * g for g, h in _pairs(u_g, v_h)]
            influences = [
                (vg - (cosine or 0.0) * ug) / (a or 1.0) + (uh - (cosine or 0.0) * vh) / (b or 1.0)
                for (ug, vg), (uh, vh) in zip(_pairs(u_g, v_g), _pairs(u_h, v_h), strict=True)
            ]

    def error(values: list[float] | None) -> float | None:
        counts = here.losses.counts
        if values is None:
            return BatchValues([sum(counts)], [0.0]).standard_error(population) if len(counts) == 1 else None
        return BatchValues(counts, values).standard_error(population)

    ratio = Estimate(value=b / a, sampling_error=error(ratios)) if a > 0 else UNKNOWN
    decayed = here.gradient + weight_decay * here.x
    moved = there.gradient + weight_decay * here.x
    total = float(torch.linalg.vector_norm(decayed))
    update = float(torch.linalg.vector_norm(moved)) / total if total > 0 else None
    return {
        "grad_norm": Estimate(value=a, sampling_error=norms[0] if norms else error(None)),
        "perturbed_grad_norm": Estimate(value=b, sampling_error=norms[1] if norms else error(None)),
        "ratio": ratio,
        "cosine": UNKNOWN if cosine is None else Estimate(value=cosine, sampling_error=error(influences)),
        "update_ratio": UNKNOWN
        if update is None
        else Estimate(value=update, sampling_error=scaled_error(ratio, update)),
    }


def _pairs(first: BatchValues, second: BatchValues) -> list[tuple[float, float]]:
    return list(zip(first.values, second.values, strict=True))


def scaled_error(ratio: Estimate, update: float) -> float | None:
    """The ratio's standard error carried over to the update ratio: decay adds no noise of its own."""
    if ratio.sampling_error is None or not ratio.value:
        return ratio.sampling_error
    return ratio.sampling_error * max(1.0, update / ratio.value) if math.isfinite(update) else None
