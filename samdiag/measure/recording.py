"""What was measured, as the plain numbers of Measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from samdiag.curvature.self_check import CheckResult
from samdiag.instruments import ProductEngine, SecondOpinion
from samdiag.measure.batch_update import MeasuredUpdate, mean_radius
from samdiag.measure.gap import Gap
from samdiag.measure.lookahead import STEPS, Lookahead
from samdiag.measure.opening import Opened
from samdiag.measure.ridge import Ridge
from samdiag.measure.sam_jacobian import SamJacobian
from samdiag.measure.scale import Scale
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import ROUNDING, Spectrum
from samdiag.measure.stopping import BOUND_PROBABILITY
from samdiag.patience import INTERRUPTED, TIME_LIMIT
from samdiag.types import Direction, Estimate, Forecast, Measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The results of every stage of one measurement."""

    settings: MeasureSettings
    ready: Opened
    gap: Gap
    scale: Scale | None
    ridge: Ridge
    ahead: Lookahead | None
    check: CheckResult
    spectrum: Spectrum
    directional_curvature: Estimate
    quadratic_error: float | None
    top: tuple[Direction, ...]
    bottom: tuple[Direction, ...]
    update: MeasuredUpdate | None
    jacobian: SamJacobian | None
    opinion: SecondOpinion | None
    forecast: Forecast | None
    engine: ProductEngine
    notes: tuple[str, ...] = ()
    hurried: bool = False  # time ran out: what comes after the spectrum was left out


def record(s: Stages) -> Measurements:
    """The stages' results side by side."""
    return Measurements(**_circumstances(s), **_gradients(s), **_curvature(s))


def _circumstances(s: Stages) -> dict[str, Any]:
    """The settings behind the numbers, and how much was looked at."""
    objective = s.ready.objective
    return {
        "rho": s.settings.rho,
        "variant": s.settings.variant,
        "lr": s.settings.lr,
        "momentum": s.settings.momentum,
        "weight_decay": s.settings.update_decay,
        "objective_decay": s.settings.objective_decay,
        "nesterov": s.settings.nesterov,
        "dampening": s.settings.dampening,
        "micro_batch": s.settings.micro_batch,
        "mode": s.settings.mode,
        "batch_size": s.ready.batch_size,
        "ascent_batch": s.ready.ascent_batch,
        "num_params": objective.num_params,
        "num_samples": objective.num_samples,
        "num_batches": len(objective.counts),
        "population": s.ready.population,
        "num_products": round(objective.num_products),
        "num_gradients": round(objective.num_gradients),
        "loss_lower_bound": s.ready.loss_lower_bound,
        "self_check": s.check.self_check,
        "second_opinion": s.opinion,
        "batch_norm": s.ready.batch_norm,
        "notes": _notes(s),
    }


def _gradients(s: Stages) -> dict[str, Any]:
    """What the losses and gradients near the point are."""
    gap, ahead = s.gap, s.ahead
    return {
        "loss": gap.loss,
        "grad_norm": _with_rounding(s),
        "perturbed_loss": gap.perturbed_loss,
        "loss_change": gap.loss_change,
        "perturbed_grad_norm": gap.perturbed_grad_norm,
        "gradient_ratio": gap.ratio,
        "gradient_cosine": gap.cosine,
        "update_ratio": gap.update_ratio,
        "perturbation_norm": float(torch.linalg.vector_norm(gap.ascent.displacement)),
        "effective_radius": mean_radius(s.settings.rho, s.scale, s.update),
        "batch_update": s.update.summary if s.update else None,
        "ascent_noise": s.scale.noise if s.scale else 0.0,
        "noise_trace": gap.noise_trace,
        "lookahead_loss": ahead.loss if ahead else None,
        "lookahead_loss_sgd": ahead.loss_sgd if ahead else None,
        "lookahead_error": ahead.error if ahead else 0.0,
        "lookahead_error_sgd": ahead.error_sgd if ahead else 0.0,
        "lookahead_cosine": ahead.cosine if ahead else None,
        "lookahead_steps": ahead.steps if ahead else STEPS,
        "ridge_distance": s.ridge.distance,
        "ridge_searched": s.ridge.searched,
    }


def _curvature(s: Stages) -> dict[str, Any]:
    """What the Hessian and the SAM Jacobian are."""
    spectrum, k = s.spectrum, s.settings.num_eigenvalues
    return {
        "directional_curvature": s.directional_curvature,
        "quadratic_error": s.quadratic_error,
        "lambda_max": spectrum.top[0],
        "lambda_min": spectrum.bottom[0],
        "lambda_min_bound": spectrum.lower_bound,
        "lambda_min_bound_probability": 1.0 if spectrum.complete else BOUND_PROBABILITY,
        "top_eigenvalues": spectrum.top[:k],
        "bottom_eigenvalues": spectrum.bottom[:k],
        "top_directions": s.top,
        "bottom_directions": s.bottom,
        "spectrum_complete": spectrum.complete,
        "solver": spectrum.run,
        "engine": s.engine,
        "jacobian_eigenvalues": s.jacobian.eigenvalues if s.jacobian else None,
        "jacobian_zero": s.jacobian.zero if s.jacobian else None,
        "forecast": s.forecast,
        "largest_multiplier": s.jacobian.multiplier if s.jacobian else None,
        "surviving_gradient": s.jacobian.surviving_gradient if s.jacobian else None,
    }


def _notes(s: Stages) -> tuple[str, ...]:
    ready, spectrum, gap = s.ready, s.spectrum, s.gap
    notes = list(ready.notes)
    if ready.ascent_batch is not None and s.update is None and not s.hurried:
        notes.append(
            f"the {ready.objective.num_samples} analysed samples are too few for the mean over batches of "
            f"{ready.ascent_batch}: the shifted gradient is that of all of them together; use more --samples"
        )
    if s.settings.variant == "gsam":
        notes.append(
            f"gsam with alpha = {s.settings.alpha:g}: fates of directions are SAM's; in simulation GSAM left none of "
            "5926 saddles that hold SAM, and stayed at some that SAM leaves (docs/theory.md A10)"
        )
    if s.settings.variant == "asam-samsung":
        notes.append(f'asam-samsung with eta_a = {s.settings.eta_a:g}, on parameters named "weight"')
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
    notes += _solver_notes(s, spectrum)
    return (*notes, *s.notes)


def _solver_notes(s: Stages, spectrum: Spectrum) -> list[str]:
    """How the eigenvalue solver ended, where that is not "all converged"."""
    run, notes = spectrum.run, []
    if run.restarts:
        notes.append(
            f"the Krylov basis was compressed {run.restarts} time(s) to stay within the memory of {run.basis_vectors} "
            "vectors"
        )
    if run.stopped == "decided":
        notes.append(
            "stopped once no threshold lay inside the certified intervals: the eigenvalues themselves are rough"
            if s.settings.until == "decided"
            else "stopped once both ends decided: eigenvalues behind the first of either end are left out where they "
            "had not converged"
        )
    elif run.stopped == "products":
        notes.append(f"the limit of {run.steps} products was reached before both ends had converged")
    elif run.stopped in (TIME_LIMIT, INTERRUPTED):
        why = "time ran out" if run.stopped == TIME_LIMIT else "interrupted"
        notes.append(f"{why} after {run.steps} products: the best answer so far, with its error bars")
    if s.hurried:
        notes.append(
            "no time was left after the spectrum: mini-batches, SAM Jacobian, forecast and second opinion were left out"
        )
    if run.lead_samples:
        notes.append(
            f"both ends were found from {run.lead_samples} samples that carry most of the loss and proved on all "
            f"{s.ready.objective.num_samples}"
        )
    if run.lead.startswith("given up") or (run.lead.startswith("none") and s.settings.solver == "two-level"):
        notes.append(f"two-level solver {run.lead}; Lanczos found both ends")
    if run.warm_start:
        notes.append(f"the spectrum was started from the eigenvectors of {run.warm_start}")
    return notes


def _with_rounding(s: Stages) -> Estimate:
    """|g| with its rounding error: measured against float64 where that ran, else the backward error.

    At least what storing and using the point costs: weights rounded by eps·|x| in a random direction, twice, move the
    gradient by about 2 eps·|x| times the root mean square of the eigenvalues: no stored point is nearer to a critical
    one.
    """
    norm, dtype = s.gap.grad_norm, s.ready.objective.dtype
    eps = torch.finfo(dtype).eps
    largest = max(abs(s.spectrum.top[0].value or 0.0), abs(s.spectrum.bottom[0].value or 0.0))
    backward = ROUNDING * eps * largest * float(torch.linalg.vector_norm(s.gap.here.x))
    measured = s.check.gradient_rounding if dtype == torch.float32 else None  # float64 has nothing finer to be held to
    error = backward if measured is None else max(measured, eps * (norm.value or 0.0))
    known = s.spectrum.all_values or [e.value or 0.0 for e in (*s.spectrum.top, *s.spectrum.bottom)]
    mean_square = math.fsum(v * v for v in known) / max(s.ready.objective.num_params, len(known))
    stored = 2.0 * eps * float(torch.linalg.vector_norm(s.gap.here.x)) * math.sqrt(mean_square)
    return replace(norm, error=max(error, stored))
