"""The two gradients that SAM is about: ∇f(x) and ∇f(x + e(x)), with standard errors over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide
from samdiag.measure.ascent import Ascent, variant_named
from samdiag.measure.bias import subset_bias
from samdiag.measure.point import Point, evaluate
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


def measure_gap(
    objective: Objective, x: Tensor, *, rho: float, variant: str, weight_decay: float, population: int | None
) -> Gap:
    """Both gradients with their errors, from about seven passes over the batches; the objective is left at `x`.

    A sampling error has two parts, added in quadrature: the standard error over batches with e(x) held fixed, and the
    bias that a subset has because its gradient is longer than the whole set's and points elsewhere (`measure.bias`).

    Source: theory B1, F1; standard errors by the delta method on per-batch projections.
    """
    objective.move_to(x)
    _, g = objective.gradient()
    ascent = variant_named(variant)(x, g, rho)
    here = evaluate(objective, x, ascent.metric)
    there = evaluate(objective, x + ascent.displacement)
    if not math.isfinite(there.loss) or not bool(torch.isfinite(there.gradient).all()):
        raise CannotDecide(
            f"the loss or its gradient is not finite at SAM's perturbed point x + e, |e| = "
            f"{float(torch.linalg.vector_norm(ascent.displacement)):.3g}",
            "rho is too large for this loss: SAM itself would fail here; try a smaller --rho",
        )
    projections = _Projections.at(objective, here, there)
    found = projections.estimates(here, there, weight_decay, population)
    noise = trace_of_noise(here.losses.counts, here.plain_squared_norms, here.norm**2)
    metric_norm = here.norm**2 if ascent.metric is None else float(torch.dot(g, ascent.metric * g))
    in_metric = trace_of_noise(here.losses.counts, here.squared_norms, metric_norm)
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
    bias = subset_bias(objective, here, there, rho=rho, variant=variant, population=population)
    objective.move_to(x)
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


@dataclass(slots=True)
class _Projections:
    """Per batch: û·g_b, û+·g_b, û·g+_b, û+·g+_b, from which the errors of norms, ratio and cosine follow."""

    counts: list[int]
    u_g: list[float]
    v_g: list[float]
    u_h: list[float]
    v_h: list[float]

    @classmethod
    def at(cls, objective: Objective, here: Point, there: Point) -> _Projections:
        u = here.gradient / (here.norm or 1.0)
        v = there.gradient / (there.norm or 1.0)
        counts: list[int] = []
        u_h: list[float] = []
        v_h: list[float] = []
        u_g: list[float] = []
        v_g: list[float] = []

        def at_there(count: int, _: float, own: Tensor) -> None:
            counts.append(count)
            u_h.append(float(torch.dot(u, own.double())))
            v_h.append(float(torch.dot(v, own.double())))

        def at_here(_count: int, _: float, own: Tensor) -> None:
            u_g.append(float(torch.dot(u, own.double())))
            v_g.append(float(torch.dot(v, own.double())))

        objective.gradient(at_there)
        objective.move_to(here.x)
        objective.gradient(at_here)
        return cls(counts=counts, u_g=u_g, v_g=v_g, u_h=u_h, v_h=v_h)

    def estimates(self, here: Point, there: Point, weight_decay: float, population: int | None) -> dict[str, Estimate]:
        a, b = here.norm, there.norm
        paired = len(self.u_g) == len(self.u_h)

        def error(values: list[float]) -> float | None:
            return BatchValues(self.counts, values).standard_error(population) if paired else None

        cosine = float(torch.dot(here.gradient, there.gradient)) / (a * b) if a > 0 and b > 0 else None
        ratio = UNKNOWN
        if a > 0:
            relative = [h / a - (b / a) * g / a for g, h in zip(self.u_g, self.v_h, strict=False)]
            ratio = Estimate(value=b / a, sampling_error=error(relative))
        influence = [
            (vg - (cosine or 0.0) * ug) / (a or 1.0) + (uh - (cosine or 0.0) * vh) / (b or 1.0)
            for ug, vg, uh, vh in zip(self.u_g, self.v_g, self.u_h, self.v_h, strict=False)
        ]
        full, full_there = here.gradient + weight_decay * here.x, there.gradient + weight_decay * here.x
        total = float(torch.linalg.vector_norm(full))
        update = float(torch.linalg.vector_norm(full_there)) / total if total > 0 else None
        return {
            "grad_norm": Estimate(value=a, sampling_error=error(self.u_g)),
            "perturbed_grad_norm": Estimate(value=b, sampling_error=error(self.v_h)),
            "ratio": ratio,
            "cosine": UNKNOWN if cosine is None else Estimate(value=cosine, sampling_error=error(influence)),
            "update_ratio": UNKNOWN
            if update is None
            else Estimate(value=update, sampling_error=_scaled(ratio, update)),
        }


def _scaled(ratio: Estimate, update: float) -> float | None:
    """The ratio's standard error carried over to the update ratio: decay adds no noise of its own."""
    if ratio.sampling_error is None or not ratio.value:
        return ratio.sampling_error
    return ratio.sampling_error * max(1.0, update / ratio.value) if math.isfinite(update) else None
