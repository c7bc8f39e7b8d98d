"""What second derivatives say at a point: self-check, both ends of the spectrum, noise along them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from samdiag.curvature.batches import count_samples
from samdiag.curvature.objective import Objective
from samdiag.curvature.products.choice import choose_engine
from samdiag.curvature.ritz import OTHERS_TOLERANCE, RitzEnds
from samdiag.curvature.self_check import CheckResult, check_products
from samdiag.errors import CannotDecide
from samdiag.instruments import ProductEngine
from samdiag.measure.base import Base
from samdiag.measure.held_out import bias_could_matter, corrected_ends
from samdiag.measure.opening import Opened
from samdiag.measure.spectrum import Spectrum, measure_spectrum, noise_along
from samdiag.measure.stopping import proof_target, stopping_rule
from samdiag.measure.warm_start import LAST_GENERATION, NEIGHBOUR, SUBSAMPLE, WarmStart, from_subsample, load, save
from samdiag.theory.sampling import unseen
from samdiag.types import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Curved:
    """What second derivatives say at the point: the same for every rho.

    Attributes:
        image: [num_params] H d, d the unit vector of SAM's displacement; None where there is none.
        noise, noise_errors, offsets: qᵀCq, its standard error and q·g for every eigenvector, top ones first.
    """

    check: CheckResult
    spectrum: Spectrum
    image: Tensor | None
    noise: list[float | None]
    noise_errors: list[float | None]
    offsets: list[float]
    engine: ProductEngine
    notes: tuple[str, ...] = ()
    hurried: bool = False  # time had run out when the curvature was known


def look_at_curvature(base: Base, displacement: Tensor, *, radius: float | None) -> Curved:
    """Self-check, both ends of the spectrum, noise along them, and the Hessian along SAM's displacement.

    Args:
        base: the point.
        displacement: [num_params] e(x) for any rho.
        radius: the effective radius whose thresholds end the spectrum early; None: full convergence.
    """
    settings, ready, tell = base.settings, base.ready, base.tell
    objective = ready.objective
    start = _known_start(base)
    tell("self-check", 0)
    check = check_problem(base.problem, ready)
    tell("products", 0)
    engine = choose_engine(objective, settings.products)
    with base.patience.listening():
        start = _start_in_part(base) if settings.warm_start == SUBSAMPLE else start
        spectrum = measure_spectrum(
            objective,
            num_eigenvalues=settings.num_eigenvalues,
            tol=settings.tol,
            max_products=settings.max_products,
            seed=settings.seed,
            population=ready.population,
            decided=stopping_rule(settings, radius),
            proof_at=proof_target(radius),
            solver=settings.solver,
            rough=settings.until == "decided" and settings.solver == "auto",
            progress=lambda ends: tell(_progress_text(ends), ends.steps),
            stop=base.patience.run_out,
            start=start,
            block=settings.block,
        )
    notes = _keep_vectors(base, spectrum, start)
    length = float(torch.linalg.vector_norm(displacement))
    image = objective.product(displacement / length).double() if length > 0 and base.here.norm > 0 else None
    spectrum, bias_notes = _for_all_the_data(base, spectrum, radius)
    vectors = torch.cat([spectrum.top_vectors, spectrum.bottom_vectors])
    noise, errors, offsets = noise_along(objective, base.here, vectors)
    return Curved(
        check=check,
        spectrum=spectrum,
        image=image,
        noise=noise,
        noise_errors=errors,
        offsets=offsets,
        engine=engine,
        notes=(*notes, *bias_notes),
        hurried=base.patience.run_out() is not None,
    )


def check_problem(problem: Problem, ready: Opened) -> CheckResult:
    """The self-check of the products on the problem's first batch."""
    objective = ready.objective
    return check_products(
        problem.model,
        ready.loss,
        objective.batches[0],
        device=objective.device,
        dtype=objective.dtype,
        count=problem.num_samples or count_samples,
        train_mode=objective.train_mode,
    )


def _for_all_the_data(base: Base, spectrum: Spectrum, radius: float | None) -> tuple[Spectrum, tuple[str, ...]]:
    """The spectrum with the samples' bias taken off both ends; where time ran out or no verdict hangs on it, a note."""
    settings, objective = base.settings, base.ready.objective
    kept = "the ends of the spectrum are those of the analysed samples, which exaggerate them: "
    if unseen(objective.num_samples, base.ready.population) <= 0:
        return spectrum, ()
    if base.patience.run_out() is not None:
        return spectrum, (f"{kept}there was no time to hold them against a held-out half",)
    top, bottom = spectrum.top, spectrum.bottom
    rough = settings.until == "decided" and radius is not None
    if rough and not bias_could_matter(top[0], bottom[0], edge=settings.edge, radius=radius or 0.0):
        return spectrum, (f"{kept}no verdict hangs on it, so no half was held out",)
    base.tell("held-out halves", round(objective.num_products))
    top, bottom = corrected_ends(
        objective,
        top,
        spectrum.top_vectors,
        bottom,
        spectrum.bottom_vectors,
        population=base.ready.population,
        products=spectrum.run.steps,
    )
    found = replace(spectrum, top=top, bottom=bottom)
    few = top[0].bias is None and objective.num_samples > 1
    return found, ((f"{kept}they cannot be halved; use more --samples, or smaller batches",) if few else ())


def _known_start(base: Base) -> WarmStart | None:
    """The start vectors of the neighbour, or in the file that the settings name; None where there are none yet."""
    said, num_params = base.settings.warm_start, base.ready.objective.num_params
    if said in (None, SUBSAMPLE):
        return None
    if said != NEIGHBOUR:
        return load(Path(str(said)), num_params)
    latest: WarmStart | None = base.problem.keep.latest.get(NEIGHBOUR) if base.problem.keep is not None else None
    fits = latest is not None and latest.vectors.shape[1] == num_params  # another one may freeze other parameters
    return latest if fits else None


def _start_in_part(base: Base) -> WarmStart | None:
    """Start vectors from a part of the samples; None: random ones."""
    base.tell("spectrum of a part of the samples", 0)
    return from_subsample(
        base.ready.objective,
        seed=base.settings.seed,
        max_products=base.settings.max_products,
        stop=base.patience.run_out,
    )


def _keep_vectors(base: Base, spectrum: Spectrum, start: WarmStart | None) -> tuple[str, ...]:
    """Writes the eigenvectors for the next checkpoint where that was asked for; what went wrong, as a note."""
    settings = base.settings
    if settings.warm_start in (None, SUBSAMPLE):
        return ()
    rows = torch.cat([spectrum.top_vectors, spectrum.bottom_vectors[: settings.num_eigenvalues]])
    if spectrum.run.stopped not in ("converged", "decided"):
        rows = rows[[_is_known(base.ready.objective, row) for row in rows]]
    generation = (start.generation if start else 0) % LAST_GENERATION + 1
    if settings.warm_start == NEIGHBOUR:
        if base.problem.keep is not None and len(rows):
            latest = WarmStart(vectors=rows.clone(), source="the checkpoint before", generation=generation)
            base.problem.keep.latest[NEIGHBOUR] = latest
        return ()
    path = Path(str(settings.warm_start))
    if not len(rows):
        return (f"no eigenvector is known well enough to start from, so nothing was written to {path}",)
    try:
        save(path, rows, generation)
    except CannotDecide as error:
        return (f"{error.what}; {error.todo}",)
    return ()


def _is_known(objective: Objective, q: Tensor) -> bool:
    """Whether the residual of the unit vector `q` is small beside its own curvature; one product.

    Estimates of a run that was cut short do not say it: their errors reach to the bound on the whole spectrum.
    """
    wide, image = q.double(), objective.product(q).double()
    value = torch.dot(wide, image)
    return bool(torch.linalg.vector_norm(image - value * wide) <= OTHERS_TOLERANCE * value.abs())


def _progress_text(ends: RitzEnds) -> str:
    """Both ends as they are now, with their residuals; nothing of them while a small problem is solved completely."""
    if not ends.top:
        return "spectrum"
    pairs = (("max", ends.top[0], ends.top_residuals[0]), ("min", ends.bottom[0], ends.bottom_residuals[0]))
    return "spectrum: " + ", ".join(f"lambda_{name} {value:.4g} ± {residual:.1g}" for name, value, residual in pairs)
