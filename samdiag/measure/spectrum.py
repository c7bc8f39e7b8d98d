"""Both ends of the Hessian's spectrum at the objective's point, with true residuals, sampling errors and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.certificate import spectrum_bounds
from samdiag.curvature.lanczos import Decided, KrylovSpectrum, RitzEnds, extremal_eigenpairs
from samdiag.curvature.memory import affordable_vectors
from samdiag.curvature.objective import Objective
from samdiag.measure.point import Point, project
from samdiag.measure.statistics import BatchValues
from samdiag.theory.edge import stability_edge
from samdiag.types import Estimate

BOUND_PROBABILITY = 0.99  # of the lower bound on lambda_min
ROUNDING = 8.0  # units of eps·|lambda|_max: float32 networks of the test suite stay below 4 against float64
IRRELEVANT_SLACK = 10.0  # times the tolerance: how well a lambda_min must be known on which no verdict depends
IRRELEVANT = 0.1  # rho_eff|lambda_min| below this: no saddle verdict can follow (|g| is ten times what matters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Eigenvalues with errors, their vectors, and what certifies the bottom.

    Attributes:
        top, bottom: estimates in the order of their vectors (descending, ascending).
        top_vectors, bottom_vectors: [k, num_params], unit rows.
        lower_bound: lambda_min is above it with BOUND_PROBABILITY.
        out_of_memory: the run ended because its basis would not fit, not because it had converged.
        rounding: absolute error that the floating-point type leaves in any eigenvalue.
    """

    top: tuple[Estimate, ...]
    top_vectors: Tensor
    bottom: tuple[Estimate, ...]
    bottom_vectors: Tensor
    complete: bool
    lower_bound: float
    steps: int
    stopped_early: bool
    out_of_memory: bool
    rounding: float
    all_values: list[float]  # with all_vectors [num_params, num_params] when complete; else empty and None
    all_vectors: Tensor | None


def measure_spectrum(
    objective: Objective,
    *,
    num_eigenvalues: int,
    tol: float,
    max_products: int,
    seed: int,
    population: int | None,
    decided: Decided | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Spectrum:
    """The top and bottom eigenpairs at the objective's present point.

    One Lanczos run, then one product per reported pair for the true residual ‖Hq − theta q‖ (the run's own estimate is
    a by-product of the recurrence), which also gives qᵀH_b q per batch and so the sampling error. A complete spectrum
    reports every negative eigenvalue.
    """
    affordable = affordable_vectors(objective.device, objective.num_params, objective.dtype)
    krylov = extremal_eigenpairs(
        objective.product,
        objective.num_params,
        num_eigenvalues=num_eigenvalues,
        tol=tol,
        max_products=min(max_products, affordable),
        generator=torch.Generator().manual_seed(seed),
        device=objective.device,
        dtype=objective.dtype,
        decided=decided,
        progress=progress,
    )
    scale = max(abs(krylov.top[0]), abs(krylov.bottom[0]))
    rounding = ROUNDING * torch.finfo(objective.dtype).eps * scale
    top = [_verify(objective, v, tol, rounding, population) for v in krylov.top_vectors]
    bottom = [_verify(objective, v, tol, rounding, population) for v in krylov.bottom_vectors]
    vectors = krylov.bottom_vectors
    if krylov.complete:
        bottom, vectors = _with_all_negatives(krylov, bottom, rounding)
    low = krylov.bottom[0]
    if not krylov.complete:
        low, _ = spectrum_bounds(
            krylov.alpha,
            krylov.beta,
            objective.num_params,
            low=krylov.bottom[0],
            high=krylov.top[0],
            probability=BOUND_PROBABILITY,
        )
    return Spectrum(
        top=tuple(top),
        top_vectors=krylov.top_vectors,
        bottom=tuple(bottom),
        bottom_vectors=vectors,
        complete=krylov.complete,
        lower_bound=low - rounding,
        steps=krylov.steps,
        stopped_early=krylov.stopped_early,
        out_of_memory=krylov.steps == affordable < max_products and not krylov.complete,
        rounding=rounding,
        all_values=krylov.all_values,
        all_vectors=krylov.all_vectors,
    )


def _verify(objective: Objective, q: Tensor, tol: float, rounding: float, population: int | None) -> Estimate:
    """The Rayleigh quotient of `q` with its true residual as error and its standard error over batches."""
    curvatures = BatchValues()

    def note(count: int, own: Tensor) -> None:
        curvatures.add(count, float(torch.dot(q, own)))

    hq = objective.product(q, note).double()
    wide = q.double()
    theta = float(torch.dot(wide, hq))
    residual = float(torch.linalg.vector_norm(hq - theta * wide))
    return Estimate(
        value=theta,
        error=residual + rounding,
        sampling_error=curvatures.standard_error(population),
        converged=residual <= max(tol * abs(theta), 2 * rounding),
    )


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


def decision_is_certain(
    radius: float, lr: float | None, momentum: float, tol: float, *, nesterov: bool = False
) -> Decided:
    """A stopping rule: both ends are known to `tol`, and no threshold that decides lies inside their bars.

    The thresholds are 0 and −1/rho_eff for lambda_min and 2(1+gamma)/eta for lambda_max. A lambda_min so small that no
    saddle verdict can depend on it need be known only to IRRELEVANT_SLACK times the tolerance: it lies in the bulk,
    where convergence is slow. What is saved are the eigenvalues behind the first of either end.
    """

    def certain(ends: RitzEnds) -> bool:
        low, low_error = ends.bottom[0], ends.bottom_residuals[0]
        high, high_error = ends.top[0], ends.top_residuals[0]
        thresholds = [0.0] + ([-1.0 / radius] if radius > 0 else [])
        clear = low_error <= tol * abs(low) and all(abs(low - t) > low_error for t in thresholds)
        slack = IRRELEVANT_SLACK * tol * abs(low)
        irrelevant = radius > 0 and low - low_error > -IRRELEVANT / radius and low_error <= slack
        edge = stability_edge(momentum, nesterov=nesterov) / lr if lr else None
        top_clear = high_error <= tol * abs(high) and (edge is None or abs(high - edge) > high_error)
        return top_clear and (clear or irrelevant)

    return certain


def noise_along(
    objective: Objective, here: Point, vectors: Tensor
) -> tuple[list[float | None], list[float | None], list[float]]:
    """qᵀCq with its standard error (None for a single batch) and q·g for each row q of `vectors` [k, num_params].

    Source: theory C, head: c is measured, never taken from the Hessian.
    """
    columns = project(objective, here, vectors)
    variances = [c.per_sample_variance() for c in columns]
    return variances, [c.variance_error() for c in columns], [c.mean for c in columns]
