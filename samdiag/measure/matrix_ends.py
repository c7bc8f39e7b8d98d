"""Both ends of the Hessian, the Gauss-Newton or the Fisher matrix, and what they let the rest be free of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.deflation import ACCEPTED, Deflation, deflate, nothing_known
from samdiag.curvature.gauss_newton import GaussNewton
from samdiag.curvature.lanczos import extremal_eigenpairs
from samdiag.curvature.memory import affordable_vectors
from samdiag.curvature.objective import Objective
from samdiag.curvature.ritz import RitzEnds
from samdiag.curvature.trace import BatchSums, PerBatchValues
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import ROUNDING, measure_spectrum, verify
from samdiag.types import Estimate

Matrix = Objective | GaussNewton


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Both ends of a matrix, whatever found them."""

    top: tuple[Estimate, ...]
    bottom: tuple[Estimate, ...]
    vectors: Tensor
    complete: bool
    all_values: list[float]
    lower_bound: float | None
    rounding: float


def affordable_steps(objective: Objective) -> int:
    return max(2, affordable_vectors(objective.device, objective.num_params, objective.dtype))


def measure_ends(
    operator: Matrix, objective: Objective, settings: MeasureSettings, population: int | None, tell: Callable[[], None]
) -> Ends:
    if isinstance(operator, Objective):
        found = measure_spectrum(
            operator,
            num_eigenvalues=settings.num_eigenvalues,
            tol=settings.tol,
            max_products=settings.max_products,
            seed=settings.seed,
            population=population,
            progress=lambda *_: tell(),
        )
        return Ends(
            top=found.top,
            bottom=found.bottom,
            vectors=torch.cat([found.top_vectors, found.bottom_vectors]),
            complete=found.complete,
            all_values=found.all_values,
            lower_bound=found.lower_bound,
            rounding=found.rounding,
        )
    return _ends_of_products(operator, objective, settings, population, tell)


def _ends_of_products(
    operator: GaussNewton,
    objective: Objective,
    settings: MeasureSettings,
    population: int | None,
    tell: Callable[[], None],
) -> Ends:
    """As `measure_spectrum`, but done as soon as the top is known: the bottom of these matrices lies at zero."""

    def top_is_known(ends: RitzEnds) -> bool:
        tolerances = [settings.tol] + [max(settings.tol, ACCEPTED)] * (len(ends.top) - 1)
        return all(
            residual <= tol * abs(value)
            for value, residual, tol in zip(ends.top, ends.top_residuals, tolerances, strict=True)
        )

    krylov = extremal_eigenpairs(
        operator.product,
        objective.num_params,
        num_eigenvalues=settings.num_eigenvalues,
        tol=settings.tol,
        max_products=min(settings.max_products, affordable_steps(objective)),
        generator=torch.Generator().manual_seed(settings.seed),
        device=objective.device,
        dtype=objective.dtype,
        decided=top_is_known,
        progress=lambda *_: tell(),
    )
    scale = max(abs(krylov.top[0]), abs(krylov.bottom[0]))
    rounding = ROUNDING * torch.finfo(objective.dtype).eps * scale
    estimates = [
        verify(operator.product, v, settings.tol, rounding, population)
        for v in torch.cat([krylov.top_vectors, krylov.bottom_vectors])
    ]
    count = len(krylov.top_vectors)
    return Ends(
        top=tuple(estimates[:count]),
        bottom=tuple(estimates[count:]),
        vectors=torch.cat([krylov.top_vectors, krylov.bottom_vectors]),
        complete=krylov.complete,
        all_values=krylov.all_values,
        lower_bound=None,
        rounding=rounding,
    )


def known_pairs(operator: Matrix, ends: Ends) -> tuple[Deflation, PerBatchValues]:
    """The ends as known pairs, and their share of every batch's trace where all of them are good enough."""
    if ends.complete:
        return nothing_known(ends.vectors), ()
    sums = BatchSums()
    found = deflate(lambda v: operator.product(v, sums.along(v, 1.0)), ends.vectors, rounding=ends.rounding)
    return found, sums.totals() if len(found.values) == len(ends.vectors) else ()
