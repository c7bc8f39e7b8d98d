"""open → resolve → build → measure the spectrum: the order for `samdiag spectrum`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import UsageError
from samdiag.failing import environment, failure_of
from samdiag.instruments import SelfCheck
from samdiag.pipeline import Progress
from samdiag.preparing import Clock, Known, Prepared, prepare
from samdiag.spectral import MATRICES, LayerSpectrum, MatrixSpectrum, SpectralReport
from samdiag.types import CheckpointInfo, Estimate

if TYPE_CHECKING:
    from samdiag.curvature.objective import Objective
    from samdiag.measure.density import Effort
    from samdiag.measure.opening import Opened

UNSAID_RHO = 1.0  # stands in for a rho that nobody said; nothing is measured with it
MOST_PROBES = 1000
MOST_STEPS = 1000
WITHOUT_EFFECT = ("until", "solver", "time_limit", "block")  # they steer `inspect`'s search for both ends
Mark = tuple[str, float, str]


def spectrum(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    config: str | None = None,
    cwd: Path | None = None,
    matrices: Sequence[str] = ("hessian",),
    params: Sequence[str] = (),
    per_layer: bool = False,
    num_probes: int | None = None,
    num_steps: int | None = None,
    thresholds: Sequence[float] = (),
    progress: Progress | None = None,
) -> SpectralReport:
    """The whole spectrum at one checkpoint; an expected failure is part of it, never an exception.

    Args:
        path: the checkpoint.
        overrides, sources, config, cwd, progress: as for `pipeline.inspect`; `sam.rho` is not needed.
        matrices: of `spectral.MATRICES`.
        params: patterns of parameter names; none: all of them.
        per_layer: also both ends and trace of every module's own parameters.
        num_probes: random vectors behind the density; 0: no density.
        num_steps: Lanczos steps of each.
        thresholds: positive; eigenvalues below −t, within ±t and above t are counted.

    Raises:
        KeyboardInterrupt: passed on.
    """
    clock, known = Clock(), Known(info=CheckpointInfo(path=str(path)))
    try:
        chosen = _checked(matrices)
        ready = prepare(
            path, known, clock, overrides=overrides, sources=sources, config=config, cwd=cwd, unsaid_rho=UNSAID_RHO
        )
        effort = _effort(num_probes, num_steps, thresholds)
        return _measure(ready, known, clock, chosen, tuple(params), per_layer, effort, progress)
    except Exception as error:
        from samdiag import __version__

        return SpectralReport(
            checkpoint=known.info,
            settings=known.settings,
            patterns=tuple(params),
            parameters=(),
            loss=None,
            grad_norm=None,
            effective_radius=None,
            stability_edge=None,
            matrices=(),
            layers=(),
            num_samples=0,
            num_batches=0,
            warnings=known.warnings,
            failure=failure_of(error),
            timings=clock.seconds,
            samdiag_version=__version__,
        )


def _checked(matrices: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in matrices if name not in MATRICES]
    if unknown or not matrices:
        raise UsageError(f"--matrix {','.join(unknown)!r} is unknown", f"choose among {', '.join(MATRICES)}")
    return tuple(dict.fromkeys(matrices))


def _effort(num_probes: int | None, num_steps: int | None, thresholds: Sequence[float]) -> Effort:
    from samdiag.measure.density import DEFAULT_PROBES, DEFAULT_STEPS, Effort

    probes = DEFAULT_PROBES if num_probes is None else num_probes
    steps = DEFAULT_STEPS if num_steps is None else num_steps
    if not 0 <= probes <= MOST_PROBES:
        raise UsageError(f"--probes {probes} is out of range", f"give 0 (no density) to {MOST_PROBES}")
    if not 2 <= steps <= MOST_STEPS:
        raise UsageError(f"--steps {steps} is out of range", f"give 2 to {MOST_STEPS}")
    if thresholds and not probes:
        raise UsageError("--threshold needs a density, and --probes 0 asks for none", "leave one of them out")
    if not all(0 < t < float("inf") for t in thresholds):
        raise UsageError(f"--threshold {min(thresholds):g} is not positive", "give a positive number, e.g. 0.01")
    return Effort(num_probes=probes, num_steps=steps, thresholds=tuple(thresholds))


def _measure(
    ready: Prepared,
    known: Known,
    clock: Clock,
    matrices: tuple[str, ...],
    patterns: tuple[str, ...],
    per_layer: bool,
    effort: Effort,
    progress: Progress | None,
) -> SpectralReport:
    from samdiag import __version__
    from samdiag.measure.blocks import block_of, matching
    from samdiag.measure.curved import check_problem
    from samdiag.measure.opening import opened

    tell = progress or (lambda _what, _count: None)
    settings = ready.settings
    with clock("measure"), opened(ready.problem, settings) as open_problem, ExitStack() as stack:
        objective = open_problem.objective
        names = matching(objective.model, patterns) if patterns else ()
        tell("gradients", 0)
        loss, norm, radius = _point(ready, open_problem, rho_known="sam.rho" in known.settings)
        edge = settings.edge
        checked = check_problem(ready.problem, open_problem).self_check if "hessian" in matrices or per_layer else None
        layers = _layers(ready, open_problem, names, tell) if per_layer else ()
        if names:
            objective = stack.enter_context(block_of(open_problem, names))
        found = tuple(
            _one(objective, name, ready, open_problem, effort, _marks(radius, edge), checked, tell) for name in matrices
        )
        info = replace(known.info, num_params=open_problem.objective.num_params)
        num_samples, num_batches = objective.num_samples, len(objective.counts)
        notes = open_problem.notes
        warnings = (*known.warnings, *_warnings(known, checked))
    return SpectralReport(
        checkpoint=info,
        settings=known.settings,
        patterns=patterns,
        parameters=names,
        loss=loss,
        grad_norm=norm,
        effective_radius=radius,
        stability_edge=edge,
        matrices=found,
        layers=layers,
        num_samples=num_samples,
        num_batches=num_batches,
        warnings=warnings,
        notes=notes,
        timings=clock.seconds,
        environment=environment(settings.device),
        samdiag_version=__version__,
    )


def _one(
    objective: Objective,
    matrix: str,
    ready: Prepared,
    open_problem: Opened,
    effort: Effort,
    marks: list[Mark],
    checked: SelfCheck | None,
    tell: Progress,
) -> MatrixSpectrum:
    from samdiag.measure.matrices import measure_matrix

    found = measure_matrix(
        objective,
        matrix,
        ready.settings,
        effort,
        population=open_problem.population,
        marks=marks if matrix == "hessian" else [],
        tell=tell,
    )
    return replace(found, self_check=checked) if matrix == "hessian" else found


def _point(ready: Prepared, open_problem: Opened, *, rho_known: bool) -> tuple[Estimate, Estimate, float | None]:
    """Loss and gradient norm, and rho_eff where rho is known and the variant has one for all directions."""
    from samdiag.measure.ascent import rule_of
    from samdiag.measure.gap import measure_gap
    from samdiag.measure.point import evaluate
    from samdiag.measure.scale import effective_radius, gradient_scale

    settings, objective = ready.settings, open_problem.objective
    here = evaluate(objective, objective.flat.double().clone())
    population = open_problem.population
    if not rho_known or settings.variant.startswith("asam"):  # ASAM has a radius for every direction
        loss = Estimate(value=here.loss, sampling_error=here.losses.standard_error(population))
        return loss, Estimate(value=here.norm), None
    gap = measure_gap(
        objective, here, rule_of(settings, objective), weight_decay=settings.update_decay, population=population
    )
    return gap.loss, gap.grad_norm, effective_radius(settings.rho, gradient_scale(gap, open_problem))


def _marks(radius: float | None, edge: float | None) -> list[Mark]:
    found: list[Mark] = []
    if radius is not None and radius > 0:  # an infinite one reverses every negative direction
        found.append(("below", -1.0 / radius, "−1/ρ_eff: directions that SAM reverses"))
    if edge is not None:
        found.append(("above", edge, "edge of stability"))
    return found


def _layers(ready: Prepared, open_problem: Opened, names: tuple[str, ...], tell: Progress) -> tuple[LayerSpectrum, ...]:
    """Every module's own block, largest |eigenvalue| first."""
    from samdiag.measure.blocks import block_of, modules_of
    from samdiag.measure.matrices import flat_layer, measure_layer

    model, used = open_problem.objective.model, _used_names(open_problem)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    found = []
    for module, own in modules_of(model).items():
        chosen = tuple(name for name in own if not names or name in names)
        if not chosen:
            continue
        if not used.intersection(chosen):
            found.append(flat_layer(module, chosen, sum(sizes[name] for name in chosen)))
            continue
        tell(f"layer {module or 'of the model itself'}", 0)
        with block_of(open_problem, chosen) as block:
            found.append(measure_layer(block, module, chosen, ready.settings, population=open_problem.population))
    return tuple(sorted(found, key=lambda layer: -_size(layer)))


def _used_names(open_problem: Opened) -> set[str]:
    objective = open_problem.objective
    trainable = [name for name, p in objective.model.named_parameters() if p.requires_grad]
    return {name for i, name in enumerate(trainable) if i in objective.used}


def _size(layer: LayerSpectrum) -> float:
    return max(abs(layer.lambda_max.value or 0.0), abs(layer.lambda_min.value or 0.0))


def _warnings(known: Known, checked: SelfCheck | None) -> list[str]:
    """What a reader must know before the numbers: options without effect, and products that cannot be believed."""
    from samdiag.types import Trust

    idle = [
        f"--{name.replace('_', '-')}"
        for name in WITHOUT_EFFECT
        if (said := known.settings.get(f"measure.{name}")) is not None and said.trust is Trust.CLI
    ]
    found = [f"{', '.join(idle)}: no effect on the spectrum command"] if idle else []
    if checked is not None and not checked.passed:
        found.append(f"the Hessian products fail their self-check: {checked.reason}")
    return found
