"""Problem → Measurements: the order in which things are measured, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch

from samdiag.curvature.batches import count_samples
from samdiag.curvature.objective import Objective
from samdiag.curvature.self_check import check_products
from samdiag.measure.gap import Gap, measure_gap
from samdiag.measure.lookahead import Lookahead, look_ahead
from samdiag.measure.opening import Opened, opened
from samdiag.measure.recording import Stages, record
from samdiag.measure.ridge import measure_ridge
from samdiag.measure.sam_jacobian import SamJacobian, measure_jacobian
from samdiag.measure.scale import Scale, effective_radius, gradient_scale
from samdiag.measure.second_opinion import ask_pyhessian
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import Spectrum, decision_is_certain, measure_spectrum, noise_along
from samdiag.theory.hallucination import SIGNATURE_RATIO
from samdiag.types import UNKNOWN, Direction, Estimate, Measurements, Problem

Progress = Callable[[str, int], None]  # (what is being done, Hessian products so far)


def measure(problem: Problem, settings: MeasureSettings, progress: Progress | None = None) -> Measurements:
    """Everything that a verdict may look at, measured at the model's present weights; the model comes back exactly.

    Raises:
        UsageError, CannotDecide: see `measure.opening`.
    """
    tell = progress or (lambda _what, _count: None)
    tell("reading the data", 0)
    with opened(problem, settings) as ready:
        return record(_measure_all(problem, settings, ready, tell))


def _measure_all(problem: Problem, settings: MeasureSettings, ready: Opened, tell: Progress) -> Stages:
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
    scale = gradient_scale(gap, ready)
    radius = effective_radius(settings.rho, scale)
    tell("ridge", 0)
    ridge = measure_ridge(objective, x, gap.ascent.displacement)
    tell("next steps", 0)
    ahead = _look_ahead(objective, gap, settings, scale, ready.batch_size)
    tell("self-check", 0)
    check = check_products(
        problem.model,
        ready.loss,
        objective.batches[0],
        device=objective.device,
        dtype=objective.dtype,
        count=problem.num_samples or count_samples,
    )
    certain = decision_is_certain(radius, settings.lr, settings.momentum, settings.tol)
    spectrum = measure_spectrum(
        objective,
        num_eigenvalues=settings.num_eigenvalues,
        tol=settings.tol,
        max_products=settings.max_products,
        seed=settings.seed,
        population=ready.population,
        decided=None if settings.variant == "asam" else certain,  # ASAM has a radius for every direction
        progress=lambda count, _: tell("spectrum", count),
    )
    along, quadratic = _second_order(objective, gap)
    top, bottom = _directions(objective, spectrum, gap, radius)
    jacobian = _jacobian(objective, gap, settings, tell)
    opinion = None
    if settings.cross_check:
        tell("second opinion", 0)
        opinion = ask_pyhessian(objective, spectrum.top[0], spectrum.bottom[0], settings.seed)
    return Stages(
        settings=settings,
        ready=ready,
        gap=gap,
        scale=scale,
        ridge=ridge,
        ahead=ahead,
        check=check,
        spectrum=spectrum,
        directional_curvature=along,
        quadratic_error=quadratic,
        top=top,
        bottom=bottom,
        jacobian=jacobian,
        opinion=opinion,
    )


def _jacobian(objective: Objective, gap: Gap, settings: MeasureSettings, tell: Progress) -> SamJacobian | None:
    """The SAM Jacobian, where the shifted gradient may vanish; it costs a second spectrum."""
    if gap.update_ratio.value is None or gap.update_ratio.low >= SIGNATURE_RATIO:
        return None
    tell("SAM Jacobian", 0)
    return measure_jacobian(objective, gap, settings)


def _look_ahead(
    objective: Objective, gap: Gap, settings: MeasureSettings, scale: Scale | None, batch_size: int | None
) -> Lookahead | None:
    if settings.lr is None or gap.here.norm == 0:
        return None
    norm = gap.ascent.normaliser
    shrink = min(1.0, norm / scale.value) if norm and scale and scale.value > 0 else 1.0
    return look_ahead(objective, gap.here.x, gap.here.loss, settings, batch_size, shrink)


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
