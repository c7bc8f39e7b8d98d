"""Both ends of the Hessian's spectrum at the objective's point, with true residuals, sampling errors and noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective, PerBatch
from samdiag.curvature.ritz import OTHERS_TOLERANCE, KrylovSpectrum
from samdiag.instruments import SolverRun
from samdiag.measure.point import Point, project
from samdiag.measure.solving import Search, solve
from samdiag.measure.statistics import BatchValues
from samdiag.measure.stopping import BOUND_PROBABILITY
from samdiag.types import Estimate

BatchProduct = Callable[[Tensor, PerBatch], Tensor]  # the matrix times a vector, shown batch by batch
ROUNDING = 8.0  # units of eps·|lambda|_max: float32 networks of the test suite stay below 4 against float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Eigenvalues with errors, their vectors, and what certifies the bottom.

    Attributes:
        top, bottom: estimates in the order of their vectors (descending, ascending).
        top_vectors, bottom_vectors: [k, num_params], unit rows.
        lower_bound: lambda_min is above it with BOUND_PROBABILITY.
        run: how the solver came to it.
        rounding: absolute error that the floating-point type leaves in any eigenvalue.
    """

    top: tuple[Estimate, ...]
    top_vectors: Tensor
    bottom: tuple[Estimate, ...]
    bottom_vectors: Tensor
    complete: bool
    lower_bound: float
    run: SolverRun
    rounding: float
    all_values: list[float]  # with all_vectors [num_params, num_params] when complete; else empty and None
    all_vectors: Tensor | None


def measure_spectrum(objective: Objective, *, population: int | None, **search: Any) -> Spectrum:
    """The top and bottom eigenpairs at the objective's present point.

    One solver run, then one product per reported pair for the true residual ‖Hq − theta q‖ (the run's own estimate is
    a by-product of the recurrence), which also gives qᵀH_b q per batch and so the sampling error. Where the run ended
    before all had converged, those behind the first that are not known to OTHERS_TOLERANCE are left out. Where time or
    products ran out all of them are, and the first one's error reaches to the bound on the whole spectrum: its residual
    is the distance to some eigenvalue, not to the end. A complete spectrum reports every negative eigenvalue.

    Args:
        objective: the loss at the point.
        population: training samples behind the analysed ones; None: many more.
        **search: the fields of `Search`.
    """
    asked = Search(**search)
    krylov, run = solve(objective, asked)
    tol = asked.tol
    scale = max(abs(krylov.top[0]), abs(krylov.bottom[0]))
    rounding = ROUNDING * torch.finfo(objective.dtype).eps * scale
    hurried = krylov.stopped not in ("converged", "decided") and not krylov.complete
    num_top = 1 if hurried else _known(krylov.top, krylov.top_residuals)
    num_bottom = 1 if hurried else _known(krylov.bottom, krylov.bottom_residuals)
    top = [verify(objective.product, v, tol, rounding, population) for v in krylov.top_vectors[:num_top]]
    bottom = [verify(objective.product, v, tol, rounding, population) for v in krylov.bottom_vectors[:num_bottom]]
    vectors = krylov.bottom_vectors[:num_bottom]
    if krylov.complete:
        bottom, vectors = _with_all_negatives(krylov, bottom, rounding)
    low, high = krylov.bounds(BOUND_PROBABILITY)
    if hurried:
        top = [_reaching(top[0], high + rounding, tol, rounding)]
        bottom = [_reaching(bottom[0], low - rounding, tol, rounding)]
    return Spectrum(
        top=tuple(top),
        top_vectors=krylov.top_vectors[:num_top],
        bottom=tuple(bottom),
        bottom_vectors=vectors,
        complete=krylov.complete,
        lower_bound=low - rounding,
        run=replace(run, lambda_max_bound=high + rounding if math.isfinite(high) else None),
        rounding=rounding,
        all_values=krylov.all_values,
        all_vectors=krylov.all_vectors,
    )


def _known(values: list[float], residuals: list[float]) -> int:
    """How many pairs in a row, from the end inwards, are known to OTHERS_TOLERANCE; at least one."""
    rough = (r > OTHERS_TOLERANCE * abs(v) for v, r in zip(values[1:], residuals[1:], strict=True))
    return 1 + next((i for i, bad in enumerate(rough) if bad), len(values) - 1)


def verify(product: BatchProduct, q: Tensor, tol: float, rounding: float, population: int | None) -> Estimate:
    """The Rayleigh quotient of `q` [num_params] with its true residual as error and its standard error over batches."""
    curvatures = BatchValues()

    def note(count: int, own: Tensor) -> None:
        curvatures.add(count, float(torch.dot(wide, own.double())))

    wide = q.double() / torch.linalg.vector_norm(q.double())
    hq = product(q, note).double()
    theta = float(torch.dot(wide, hq))
    residual = float(torch.linalg.vector_norm(hq - theta * wide))
    return Estimate(
        value=theta,
        error=residual + rounding,
        sampling_error=curvatures.standard_error(population),
        converged=residual <= max(tol * abs(theta), 2 * rounding),
    )


def _reaching(end: Estimate, bound: float, tol: float, rounding: float) -> Estimate:
    """The estimate with an error that covers everything up to `bound`, beyond which the spectrum does not go."""
    assert end.value is not None
    reach = abs(bound - end.value)
    met = end.converged and reach <= max(tol * abs(end.value), 2 * rounding)
    return replace(end, error=max(end.error, reach), converged=met)


def _with_all_negatives(
    krylov: KrylovSpectrum, bottom: list[Estimate], rounding: float
) -> tuple[list[Estimate], Tensor]:
    """The verified bottom, continued by the rest of a complete spectrum's negative eigenvalues."""
    assert krylov.all_vectors is not None
    count = max(len(bottom), sum(v < 0 for v in krylov.all_values))
    widest = max((e.error for e in bottom), default=rounding)
    shares = [e.sampling_error for e in bottom if e.sampling_error is not None]
    rest = [
        Estimate(value=v, error=widest, sampling_error=max(shares) if shares else None)
        for v in krylov.all_values[len(bottom) : count]
    ]
    return bottom + rest, krylov.all_vectors[:count]


def noise_along(
    objective: Objective, here: Point, vectors: Tensor
) -> tuple[list[float | None], list[float | None], list[float]]:
    """qᵀCq with its standard error (None for a single batch) and q·g for each row q of `vectors` [k, num_params].

    Source: theory C, head: c is measured, never taken from the Hessian.
    """
    columns = project(objective, here, vectors)
    variances = [c.per_sample_variance() for c in columns]
    return variances, [c.variance_error() for c in columns], [c.mean for c in columns]
