"""Sums over a spectrum with their errors: trace, Frobenius norm, Σ|λ| and effective rank."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from samdiag.curvature.deflation import Deflation
from samdiag.curvature.density import Quadrature
from samdiag.curvature.objective import PerBatch
from samdiag.curvature.trace import PerBatchValues, Trace, best_sketch, hutch_plus_plus, student
from samdiag.measure.matrix_ends import Ends, Matrix
from samdiag.measure.statistics import BatchValues
from samdiag.spectral import Traces
from samdiag.types import Estimate

TRACE_SEED = 211  # added to the seed: probes must not depend on what found the known eigenvectors


def measure_traces(
    operator: Matrix,
    like: Tensor,
    ends: Ends,
    known: Deflation,
    per_batch: PerBatchValues,
    rule: Quadrature | None,
    products: int,
    seed: int,
    population: int | None,
) -> Traces:
    if ends.complete:
        return _exact_traces(ends)

    def product(v: Tensor, each: PerBatch | None) -> Tensor:
        return operator.product(v, each)

    found = hutch_plus_plus(
        product,
        like.numel(),
        num_products=products,
        generator=torch.Generator().manual_seed(seed + TRACE_SEED),
        like=like,
        known=known,
        known_batches=per_batch,
        num_sketch=_sketch(known, rule, products),
    )
    trace, squared = pooled(found, rule)
    trace = replace(trace, sampling_error=_between(found, population))
    absolute = rank = None
    if rule is not None:
        total = rule.sum_of(lambda values: np.abs(values)[None, :])
        value = float(total.value[0])
        absolute = Estimate(value=value, error=float(max(total.high[0] - value, value - total.low[0])))
        rank = _effective_rank(absolute, squared)
    return Traces(trace=trace, squared_norm=squared, absolute=absolute, effective_rank=rank, products=found.products)


def _sketch(known: Deflation, rule: Quadrature | None, products: int) -> int | None:
    """Columns of the sketch: by the density where there is one; none where the outliers are known already."""
    if rule is not None and rule.rules:
        return best_sketch(np.abs(rule.nodes), rule.rest * rule.weights, products)
    return 0 if len(known.values) else None


def pooled(found: Trace, rule: Quadrature | None) -> tuple[Estimate, Estimate]:
    """tr H and tr H² from Hutch++ and from the probes of the density, weighted by their variances; 95 % half-widths.

    The density's probes cost nothing here. Where the spectrum is flat they say as much as Hutch++'s.
    """
    freedom, share = found.num_probes - 1, 0.0
    if rule is not None and rule.rules and found.error > 0:
        freedom += len(rule.rules)
        _, spread = rule.mean_of(lambda v: v)
        share = found.error**2 / (found.error**2 + spread**2) if math.isfinite(found.error) else 1.0
    estimates = []
    for value, error, power in ((found.value, found.error, 1), (found.squared, found.squared_error, 2)):
        if rule is not None and share > 0:
            other, spread = rule.mean_of(lambda v, power=power: v**power)  # type: ignore[misc]
            value = (1.0 - share) * value + share * other  # noqa: PLW2901
            error = math.hypot((1.0 - share) * error, share * spread) if share < 1.0 else spread  # noqa: PLW2901
        estimates.append(Estimate(value=value, error=error * student(freedom) if error else 0.0))
    return estimates[0], estimates[1]


def _between(found: Trace, population: int | None) -> float | None:
    """The standard error over batches; the probes are the same for all of them."""
    values = BatchValues()
    for count, value in found.per_batch:
        values.add(count, value)
    return values.standard_error(population) if found.per_batch else None


def _effective_rank(absolute: Estimate, squared: Estimate) -> Estimate:
    """(Σ|λ|)²/Σλ² with the errors of both added in quadrature; none for a flat matrix."""
    a, b = absolute.value or 0.0, squared.value or 0.0
    if a <= 0 or b <= 0:
        return Estimate(value=0.0)
    return Estimate(value=a * a / b, error=a * a / b * math.hypot(2 * absolute.error / a, squared.error / b))


def _exact_traces(ends: Ends) -> Traces:
    values, rounding = ends.all_values, ends.rounding
    absolute = Estimate(value=math.fsum(abs(v) for v in values), error=rounding * len(values))
    squared = math.fsum(v * v for v in values)
    norm = Estimate(value=squared, error=2 * rounding * (absolute.value or 0.0))
    return Traces(
        trace=Estimate(value=math.fsum(values), error=rounding * len(values)),
        squared_norm=norm,
        absolute=absolute,
        effective_rank=_effective_rank(absolute, norm),
        products=0,
    )
