"""One matrix at the objective's point: both ends, density with bands, counts with intervals, and trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from samdiag.curvature.density import quadrature, whole_spectrum
from samdiag.curvature.fisher import Fisher
from samdiag.curvature.gauss_newton import GaussNewton
from samdiag.curvature.objective import Objective
from samdiag.curvature.products.choice import choose_engine
from samdiag.measure.density import Effort, Mark, counts_of, density_of
from samdiag.measure.matrix_ends import Matrix, affordable_steps, known_pairs, measure_ends
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.traces import measure_traces
from samdiag.spectral import LayerSpectrum, MatrixSpectrum
from samdiag.types import Estimate

TRACE_PRODUCTS = 30  # Hutch++: split between a sketch and probes by what the density says
TRACE_SHARE = 4  # products of the trace for every probe of the density, where that is more
LAYER_TRACE_PRODUCTS = 15
DENSITY_SEED = 101  # added to the seed: probes must not depend on what found the known eigenvectors

Tell = Callable[[str, int], None]


def measure_matrix(
    objective: Objective,
    matrix: str,
    settings: MeasureSettings,
    effort: Effort,
    *,
    population: int | None,
    marks: Sequence[Mark],
    tell: Tell,
) -> MatrixSpectrum:
    """One matrix of an objective at its present point.

    Args:
        objective: all parameters, or a block of them.
        matrix: one of `spectral.MATRICES`.
        settings: tolerance, number of eigenvalues, seed.
        effort: probes and steps.
        population: see `measure_spectrum`.
        marks: (side, threshold, meaning) of counts beyond those asked for.
        tell: progress.
    """
    before = objective.num_products
    operator: Matrix = objective
    if matrix != "hessian":
        operator = (GaussNewton if matrix == "ggn" else Fisher)(objective)
        tell(f"{matrix}: check", 0)
        operator.check(torch.Generator().manual_seed(settings.seed))
        objective.drop_graphs()
    else:
        tell("products", 0)
        choose_engine(objective, settings.products)

    def spent() -> int:
        return round(operator.num_products - (before if operator is objective else 0))

    tell(f"{matrix}: ends", 0)
    ends = measure_ends(operator, objective, settings, population, lambda: tell(f"{matrix}: ends", spent()))
    known, per_batch = known_pairs(operator, ends)
    rule = None
    if effort.num_probes and ends.complete:
        rule = whole_spectrum(ends.all_values, objective.flat, ends.rounding)
    elif effort.num_probes:
        rule = quadrature(
            operator.product,
            objective.num_params,
            known=known,
            num_probes=effort.num_probes,
            num_steps=min(effort.num_steps, affordable_steps(objective)),
            generator=torch.Generator().manual_seed(settings.seed + DENSITY_SEED),
            like=objective.flat,
            rounding=ends.rounding,
            progress=lambda _: tell(f"{matrix}: density", spent()),
        )
    tell(f"{matrix}: trace", spent())
    products = max(TRACE_PRODUCTS, TRACE_SHARE * effort.num_probes)
    traces = measure_traces(operator, objective.flat, ends, known, per_batch, rule, products, settings.seed, population)
    if isinstance(operator, GaussNewton):
        operator.drop_graphs()
    largest = max(abs(ends.top[0].value or 0.0), abs(ends.bottom[0].value or 0.0))
    return MatrixSpectrum(
        matrix=matrix,
        num_params=objective.num_params,
        lambda_max=ends.top[0],
        lambda_min=ends.bottom[0],
        lambda_min_bound=ends.lower_bound,
        top_eigenvalues=ends.top,
        bottom_eigenvalues=ends.bottom,
        complete=ends.complete,
        traces=traces,
        density=density_of(rule, ends.bottom[0].low, ends.top[0].high) if rule else None,
        counts=counts_of(rule, largest, effort, marks) if rule else (),
        num_products=spent(),
    )


def measure_layer(
    objective: Objective,
    module: str,
    names: tuple[str, ...],
    settings: MeasureSettings,
    *,
    population: int | None,
) -> LayerSpectrum:
    """Both ends and the trace of the block that `objective` is."""
    ends = measure_ends(objective, objective, settings, population, lambda: None)
    known, per_batch = known_pairs(objective, ends)
    traces = measure_traces(
        objective, objective.flat, ends, known, per_batch, None, LAYER_TRACE_PRODUCTS, settings.seed, population
    )
    return LayerSpectrum(
        module=module,
        parameters=names,
        num_params=objective.num_params,
        lambda_max=ends.top[0],
        lambda_min=ends.bottom[0],
        trace=traces.trace,
        num_products=round(objective.num_products),
    )


def flat_layer(module: str, names: tuple[str, ...], num_params: int) -> LayerSpectrum:
    """A module that the loss does not use: its block is zero."""
    zero = Estimate(value=0.0)
    return LayerSpectrum(
        module=module,
        parameters=names,
        num_params=num_params,
        lambda_max=zero,
        lambda_min=zero,
        trace=zero,
        num_products=0,
    )
