"""Problem → Measurements: the order in which things are measured, and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from samdiag.measure.ascent import Rule
from samdiag.measure.base import Base, Progress, begin
from samdiag.measure.batch_update import FEWEST, MeasuredUpdate, mean_radius, measure_batch_update, training_groups
from samdiag.measure.curved import Curved, look_at_curvature
from samdiag.measure.forecast import forecast
from samdiag.measure.gap import Gap, measure_gap
from samdiag.measure.lookahead import Lookahead, Steps, follow, look_ahead
from samdiag.measure.opening import opened
from samdiag.measure.recording import Stages, record
from samdiag.measure.ridge import Ridge, measure_ridge
from samdiag.measure.sam_jacobian import SamJacobian, measure_jacobian
from samdiag.measure.scale import Scale, effective_radius, gradient_scale
from samdiag.measure.second_opinion import ask_pyhessian
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import Spectrum
from samdiag.measure.trial import CutShort, run_trial
from samdiag.patience import Patience
from samdiag.theory.hallucination import SIGNATURE_RATIO
from samdiag.types import UNKNOWN, Direction, Estimate, Measurements, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """What first derivatives say at one rho; `trials`: whether next steps were (and the forecast is) asked for."""

    rule: Rule
    settings: MeasureSettings
    gap: Gap
    scale: Scale | None
    ridge: Ridge
    ahead: Lookahead | None
    trials: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The measurements, and what a probe needs to go on from there while the model is still borrowed."""

    measurements: Measurements
    base: Base
    near: Near
    curved: Curved


def measure(
    problem: Problem,
    settings: MeasureSettings,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Measurements:
    """Everything that a verdict may look at; see `measuring`."""
    with measuring(problem, settings, progress, patience) as found:
        return found.measurements


@contextmanager
def measuring(
    problem: Problem,
    settings: MeasureSettings,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Iterator[Measured]:
    """Everything that a verdict may look at, measured at the model's present weights; the model comes back exactly.

    While the context lasts the model is borrowed, so that runs may be tried from the same point.

    Args:
        problem: model, loss and data.
        settings: what is judged, and how hard to look.
        progress: called with what is being done and the products so far.
        patience: may end the spectrum early; its clock starts here with the settings' time limit.

    Raises:
        UsageError, CannotDecide: see `measure.opening`.
    """
    tell = progress or (lambda _what, _count: None)
    tell("reading the data", 0)
    patience = patience or Patience()
    patience.begin(settings.time_limit)
    with opened(problem, settings) as ready:
        base = begin(problem, settings, ready, tell, patience)
        near = look_near(base, settings.rho)
        radius = effective_radius(settings.rho, near.scale)
        curved = look_at_curvature(base, near.gap.ascent.displacement, radius=radius)
        yield Measured(measurements=complete(base, near, curved), base=base, near=near, curved=curved)


def look_longer(found: Measured, steps: int) -> Measurements:
    """The same after a trial of `steps` real steps with SAM and with plain gradients, in place of the next few.

    As it was, with a note, where the time limit or the first Ctrl-C comes before the end of it.
    """
    base, near, m = found.base, found.near, found.measurements
    objective, batch_size = base.ready.objective, base.ready.batch_size
    base.tell("a longer trial", 0)
    run = functools.partial(run_trial, objective, base.here.x, settings=near.settings, batch_size=batch_size)
    try:
        with base.patience.listening():
            sam, plain = (run(rule=rule, steps=steps, stop=base.patience.run_out) for rule in (near.rule, None))
    except CutShort as cut:
        note = f"a trial of {steps} steps was cut short ({cut}): the verdict rests on the next {m.lookahead_steps}"
        return replace(m, notes=(*m.notes, note), num_gradients=round(objective.num_gradients))
    return replace(
        m,
        lookahead_loss=base.here.loss + sam.change,
        lookahead_loss_sgd=base.here.loss + plain.change,
        lookahead_error=sam.error,
        lookahead_error_sgd=plain.error,
        lookahead_steps=steps,
        num_gradients=round(objective.num_gradients),
    )


def look_near(
    base: Base, rho: float, *, ridge: Ridge | None = None, plain: Steps | None = None, trials: bool = True
) -> Near:
    """The gap, the ridge and the next steps at one rho.

    Args:
        base: the point.
        rho: the radius.
        ridge: where it is known already.
        plain: where plain gradient steps lead, if known.
        trials: whether to run the next steps.
    """
    objective, ready = base.ready.objective, base.ready
    rule, settings = base.rule.with_rho(rho), replace(base.settings, rho=rho)
    gap = measure_gap(objective, base.here, rule, weight_decay=settings.update_decay, population=ready.population)
    scale = gradient_scale(gap, ready)
    if ridge is None:
        base.tell("ridge", 0)
        ridge = measure_ridge(objective, base.here.x, gap.ascent.displacement)
    ahead = None
    if trials and settings.lr is not None and base.here.norm > 0:
        base.tell("next steps", 0)
        norm = gap.ascent.normaliser
        shrink = min(1.0, norm / scale.value) if norm and scale and scale.value > 0 else 1.0
        ahead = look_ahead(
            objective,
            base.here.x,
            base.here.loss,
            rule,
            settings,
            batch_size=ready.batch_size,
            shrink=shrink,
            plain=plain,
        )
    return Near(rule=rule, settings=settings, gap=gap, scale=scale, ridge=ridge, ahead=ahead, trials=trials)


def plain_steps(base: Base) -> Steps | None:
    """Where plain gradient steps lead from the point; None without lr or at a critical point."""
    if base.settings.lr is None or base.here.norm == 0:
        return None
    base.tell("next steps", 0)
    return follow(
        base.ready.objective,
        base.here.x,
        base.here.loss,
        None,
        base.settings,
        batch_size=base.ready.batch_size,
    )


def complete(base: Base, near: Near, curved: Curved) -> Measurements:
    """What needs both: the real mini-batch update, the directions' fates' numbers, the SAM Jacobian."""
    objective = base.ready.objective
    spectrum = curved.spectrum
    hurried = curved.hurried
    update = None if hurried else _batch_update(base, near, spectrum)
    along, quadratic = _second_order(base, near, curved)
    jacobian = None if hurried else _jacobian(base, near, spectrum, update)
    opinion = None
    if base.settings.cross_check and not hurried:
        base.tell("second opinion", 0)
        opinion = ask_pyhessian(objective, spectrum.top[0].in_sample, spectrum.bottom[0].in_sample, base.settings.seed)
    top, bottom = _directions(near, curved, update)
    return record(
        Stages(
            settings=near.settings,
            ready=base.ready,
            gap=near.gap,
            scale=near.scale,
            ridge=near.ridge,
            ahead=near.ahead,
            check=curved.check,
            spectrum=spectrum,
            directional_curvature=along,
            quadratic_error=quadratic,
            top=top,
            bottom=bottom,
            update=update,
            jacobian=jacobian,
            opinion=opinion,
            forecast=forecast(objective, spectrum, near.gap, near.settings, base.ready)
            if near.trials and not hurried
            else None,
            engine=curved.engine,
            notes=curved.notes,
            hurried=hurried,
        )
    )


def _batch_update(base: Base, near: Near, spectrum: Spectrum) -> MeasuredUpdate | None:
    """The mini-batch update, where the ascent sees batches and there are enough of them among the samples."""
    size = base.ready.ascent_batch
    if size is None or base.ready.objective.num_samples < FEWEST * size // 2:
        return None
    base.tell("mini-batches", 0)
    return measure_batch_update(
        base.ready.objective,
        near.gap,
        near.rule,
        size=size,
        weight_decay=near.settings.update_decay,
        vectors=torch.cat([spectrum.top_vectors, spectrum.bottom_vectors]),
    )


def _jacobian(base: Base, near: Near, spectrum: Spectrum, update: MeasuredUpdate | None) -> SamJacobian | None:
    """The SAM Jacobian where the update may vanish, or on demand; it costs a second spectrum or more."""
    ratio = near.gap.update_ratio if update is None else update.summary.update_ratio
    always = near.settings.jacobian == "arnoldi"
    if not always and (ratio.value is None or ratio.low >= SIGNATURE_RATIO):
        return None
    base.tell("SAM Jacobian", 0)
    size = base.ready.ascent_batch
    groups = None if update is None or size is None else training_groups(base.ready.objective, size)
    return measure_jacobian(
        base.ready.objective,
        near.gap,
        near.rule,
        near.settings,
        curvature=max(abs(end.in_sample.value or 0.0) for end in (spectrum.top[0], spectrum.bottom[0])),
        groups=groups,
        outer=always,
    )


def _second_order(base: Base, near: Near, curved: Curved) -> tuple[Estimate, float | None]:
    """uᵀHu, and how far g + He is from g+ relative to He."""
    e, image = near.gap.ascent.displacement, curved.image
    length = float(torch.linalg.vector_norm(e))
    if image is None or length == 0:
        return UNKNOWN, None
    size = float(torch.linalg.vector_norm(image))
    along = Estimate(
        value=float(torch.dot(e / length, image)),
        error=8 * torch.finfo(base.ready.objective.dtype).eps * size,  # rounding of one product
    )
    miss = float(torch.linalg.vector_norm(near.gap.there.gradient - base.here.gradient - length * image))
    return along, miss / (length * size) if size > 0 else None


def _directions(
    near: Near, curved: Curved, update: MeasuredUpdate | None
) -> tuple[tuple[Direction, ...], tuple[Direction, ...]]:
    """Every reported eigenpair with its own effective radius, noise qᵀCq and offset q·g.

    The radius is rho_eff·qᵀDq; where mini-batches were measured, what they say (theory A, head), except in a scaled
    metric, where the two factors do not separate.
    """
    spectrum, metric = curved.spectrum, near.gap.ascent.metric
    vectors = torch.cat([spectrum.top_vectors, spectrum.bottom_vectors])
    radius = mean_radius(near.rule.rho, near.scale, update)
    found = []
    for i, (estimate, q) in enumerate(zip((*spectrum.top, *spectrum.bottom), vectors, strict=True)):
        stretch = 1.0 if metric is None else float(torch.dot(q.double() ** 2, metric))
        effective = radius * stretch if stretch > 0 else 0.0
        if update is not None and update.radii and metric is None:
            effective = update.radii[i].value or 0.0
        found.append(
            Direction(
                eigenvalue=estimate,
                effective_radius=effective,
                noise=curved.noise[i],
                noise_error=curved.noise_errors[i],
                offset=curved.offsets[i],
            )
        )
    return tuple(found[: len(spectrum.top)]), tuple(found[len(spectrum.top) :])
