"""Problem → Measurements: the order in which things are measured, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.batches import count_samples
from samdiag.curvature.objective import Objective
from samdiag.curvature.self_check import CheckResult, check_products
from samdiag.measure.gap import Gap, measure_gap
from samdiag.measure.lookahead import STEPS, Lookahead, look_ahead
from samdiag.measure.opening import Opened, opened
from samdiag.measure.ridge import measure_ridge
from samdiag.measure.sam_jacobian import measure_jacobian
from samdiag.measure.second_opinion import ask_pyhessian
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import (
    BOUND_PROBABILITY,
    Spectrum,
    decision_is_certain,
    measure_spectrum,
    noise_along,
)
from samdiag.theory.hallucination import SIGNATURE_RATIO
from samdiag.types import UNKNOWN, Direction, Estimate, Measurements, Problem, SelfCheck

Progress = Callable[[str, int], None]  # (what is being done, Hessian products so far)


def measure(problem: Problem, settings: MeasureSettings, progress: Progress | None = None) -> Measurements:
    """Everything that a verdict may look at, measured at the model's present weights; the model comes back exactly.

    Raises:
        UsageError, CannotDecide: see `measure.opening`.
    """
    tell = progress or (lambda _what, _count: None)
    tell("reading the data", 0)
    with opened(problem, settings) as ready:
        objective = ready.objective
        tell("gradients", 0)
        x = objective.flat.double().clone()
        gap = measure_gap(
            objective,
            x,
            rho=settings.rho,
            variant=settings.variant,
            weight_decay=settings.weight_decay,
            population=ready.population,
        )
        scale = _gradient_scale(gap, ready, settings)
        tell("ridge", 0)
        ridge = measure_ridge(objective, x, gap.ascent.displacement)
        ahead = _look_ahead(objective, gap, settings, scale)
        tell("self-check", 0)
        check = check_products(
            problem.model,
            ready.loss,
            objective.batches[0],
            device=objective.device,
            dtype=objective.dtype,
            count=problem.num_samples or count_samples,
        )
        radius = settings.rho if scale is None else (settings.rho / scale.value if scale.value > 0 else math.inf)
        spectrum = measure_spectrum(
            objective,
            num_eigenvalues=settings.num_eigenvalues,
            tol=settings.tol,
            max_products=settings.max_products,
            seed=settings.seed,
            population=ready.population,
            decided=decision_is_certain(radius, settings.lr, settings.momentum, settings.tol),
            progress=lambda count, _: tell("spectrum", count),
        )
        along, quadratic = _second_order(objective, gap)
        directions = _directions(objective, spectrum, gap, radius)
        jacobian = None
        if gap.update_ratio.value is not None and gap.update_ratio.low < SIGNATURE_RATIO:
            tell("SAM Jacobian", 0)
            jacobian = measure_jacobian(objective, gap, settings)
        opinion = None
        if settings.cross_check:
            tell("second opinion", 0)
            opinion = ask_pyhessian(objective, spectrum.top[0], spectrum.bottom[0], settings.seed)
        k = settings.num_eigenvalues
        return Measurements(
            rho=settings.rho,
            variant=settings.variant,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            batch_size=ready.batch_size,
            num_params=objective.num_params,
            num_samples=objective.num_samples,
            num_batches=len(objective.counts),
            population=ready.population,
            num_products=objective.num_products,
            num_gradients=round(objective.num_gradients),
            loss_lower_bound=ready.loss_lower_bound,
            loss=gap.loss,
            grad_norm=_with_rounding(gap.grad_norm, check, spectrum, x, objective),
            perturbed_loss=gap.perturbed_loss,
            loss_change=gap.loss_change,
            perturbed_grad_norm=gap.perturbed_grad_norm,
            gradient_ratio=gap.ratio,
            gradient_cosine=gap.cosine,
            update_ratio=gap.update_ratio,
            perturbation_norm=float(torch.linalg.vector_norm(gap.ascent.displacement)),
            directional_curvature=along,
            quadratic_error=quadratic,
            lookahead_loss=ahead.loss if ahead else None,
            lookahead_loss_sgd=ahead.loss_sgd if ahead else None,
            lookahead_cosine=ahead.cosine if ahead else None,
            lookahead_steps=STEPS,
            ascent_noise=scale.noise if scale else 0.0,
            ridge_distance=ridge.distance,
            ridge_searched=ridge.searched,
            lambda_max=spectrum.top[0],
            lambda_min=spectrum.bottom[0],
            lambda_min_bound=spectrum.lower_bound,
            lambda_min_bound_probability=1.0 if spectrum.complete else BOUND_PROBABILITY,
            top_eigenvalues=spectrum.top[:k],
            bottom_eigenvalues=spectrum.bottom[:k],
            top_directions=directions[0],
            bottom_directions=directions[1],
            spectrum_complete=spectrum.complete,
            effective_radius=radius,
            noise_trace=gap.noise_trace,
            jacobian_eigenvalues=jacobian.eigenvalues if jacobian else None,
            jacobian_zero=jacobian.zero if jacobian else None,
            self_check=SelfCheck(
                passed=check.passed,
                symmetry_error=check.symmetry_error,
                repeat_error=check.repeat_error,
                finite_difference_error=check.finite_difference_error,
                reason=check.reason,
            ),
            second_opinion=opinion,
            notes=_notes(ready, spectrum, gap),
        )


def _notes(ready: Opened, spectrum: Spectrum, gap: Gap) -> tuple[str, ...]:
    notes = list(ready.notes)
    if gap.grad_norm.low <= 0 < (gap.grad_norm.sampling_error or 0.0):
        notes.append(
            f"the gradient of these {ready.objective.num_samples} samples cannot be told from sampling noise: the two "
            "gradients and their ratio say little about the whole training set; use more --samples"
        )
    if ready.objective.split:
        notes.append(
            f"memory ran out: batches were halved {ready.objective.split} time(s); right when the loss is a "
            "mean over samples"
        )
    if spectrum.stopped_early:
        notes.append(
            "stopped once both ends decided: eigenvalues behind the first of either end may not have converged"
        )
    return tuple(notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """What divides rho on average, √(|g|² + tr C/m) in the variant's metric: its value and its noise part squared."""

    value: float
    noise: float


def _gradient_scale(gap: Gap, ready: Opened, settings: MeasureSettings) -> _Scale | None:
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
    squared = max(norm**2 - (noise / samples * unseen if partial else 0.0), 0.0)
    ascent = 0.0
    if ready.batch_size is not None:
        ascent = noise / ready.batch_size * (1.0 - ready.batch_size / population if population else 1.0)
    return _Scale(value=math.sqrt(squared + ascent), noise=ascent)


def _look_ahead(objective: Objective, gap: Gap, settings: MeasureSettings, scale: _Scale | None) -> Lookahead | None:
    if settings.lr is None or gap.here.norm == 0:
        return None
    norm = gap.ascent.normaliser
    return look_ahead(
        objective,
        gap.here.x,
        rho=settings.rho,
        variant=settings.variant,
        shrink=norm / scale.value if norm and scale and scale.value > 0 else 1.0,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _second_order(objective: Objective, gap: Gap) -> tuple[Estimate, float | None]:
    """uᵀHu, and how far g + He is from g+ relative to He; one product."""
    e = gap.ascent.displacement
    length = float(torch.linalg.vector_norm(e))
    if length == 0 or gap.here.norm == 0:
        return UNKNOWN, None
    direction = e / length
    image = objective.product(direction).double()
    along = Estimate(
        value=float(torch.dot(direction, image)),
        error=8 * torch.finfo(objective.dtype).eps * float(torch.linalg.vector_norm(image)),  # rounding of one product
    )
    predicted = gap.here.gradient + length * image
    size = length * float(torch.linalg.vector_norm(image))
    miss = float(torch.linalg.vector_norm(gap.there.gradient - predicted))
    return along, miss / size if size > 0 else None


def _directions(
    objective: Objective, spectrum: Spectrum, gap: Gap, radius: float
) -> tuple[tuple[Direction, ...], tuple[Direction, ...]]:
    """Every reported eigenpair with its own effective radius rho_eff·qᵀDq, noise qᵀCq and offset q·g."""
    vectors = torch.cat([spectrum.top_vectors, spectrum.bottom_vectors])
    noise, offsets = noise_along(objective, vectors)
    metric = gap.ascent.metric
    found = []
    for estimate, q, c, offset in zip((*spectrum.top, *spectrum.bottom), vectors, noise, offsets, strict=True):
        stretch = 1.0 if metric is None else float(torch.dot(q.double() ** 2, metric))
        effective = radius * stretch if stretch > 0 else 0.0
        found.append(Direction(eigenvalue=estimate, effective_radius=effective, noise=c, offset=offset))
    return tuple(found[: len(spectrum.top)]), tuple(found[len(spectrum.top) :])


def _with_rounding(norm: Estimate, check: CheckResult, spectrum: Spectrum, x: Tensor, objective: Objective) -> Estimate:
    """|g| with its rounding error: measured against float64 where that ran, else eps·|lambda|_max·|x| (backward
    error).
    """
    eps = torch.finfo(objective.dtype).eps
    largest = max(abs(spectrum.top[0].value or 0.0), abs(spectrum.bottom[0].value or 0.0))
    backward = eps * largest * float(torch.linalg.vector_norm(x))
    error = backward if check.gradient_rounding is None else max(check.gradient_rounding, eps * (norm.value or 0.0))
    return Estimate(value=norm.value, error=error, sampling_error=norm.sampling_error)
