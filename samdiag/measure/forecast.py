"""Where full-batch SAM goes from here, on the quadratic that a complete spectrum and the gradient make up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.measure.gap import Gap
from samdiag.measure.opening import Opened
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import Spectrum
from samdiag.theory.quadratic import DIVERGES, LEAVES, STAYS, Course, simulate
from samdiag.types import Forecast

NAMES = {STAYS: "stays", LEAVES: "leaves", DIVERGES: "diverges"}
STEPS = 10_000  # horizon: of 1100 random saddles none that stayed so long without growing left within ten times that
SHIFT = 0.05  # of rho and of every gradient component: the margin of theory A5
STARTS = 6  # shifted starts, every component of each by its own random share of SHIFT
SEED_SHARE = 1e-6  # of the gradient, added to its components: no real run stays on a stable manifold
NEAR_TOP = 1e-3  # of rho·|lam|_max: size of the gradient from which runs start at a critical point
MODEL_ERROR = 0.1  # of |g| + |He|: how far the real update may be from the quadratic's along the path
PATH_POINTS = 8  # where that is looked at


def forecast(
    objective: Objective, spectrum: Spectrum, gap: Gap, settings: MeasureSettings, ready: Opened
) -> Forecast | None:
    """What full-batch SAM does on the local quadratic, from here and from nearby; None where that is not known.

    It is known for `sam` with full batches, an lr and a complete spectrum, and asked for where an eigenvalue is
    negative beyond weight decay. Nearby are rho and the gradient's components shifted by SHIFT, and the eigenvalues at
    either end of their error bars. Where they disagree, or where the real update along the path is not the
    quadratic's, the outcome is open. The objective is left at the gap's point.

    Args:
        objective: at any point.
        spectrum: at the gap's point.
        gap: the gradient there.
        settings: the optimiser.
        ready: what batches the run sees.

    Source: theory A5 to A8, by simulation where they give no closed form.
    """
    known = settings.variant == "sam" and settings.lr is not None and spectrum.all_vectors is not None
    negative = spectrum.bottom[0].high + settings.update_decay < 0
    if not known or not negative or ready.ascent_batch is not None or ready.batch_norm:
        return None
    assert settings.lr is not None
    basis = Basis.of(spectrum, gap)
    runs = _nearby(spectrum, basis, gap, settings)
    course = simulate(
        runs.lam,
        runs.gradient,
        position=runs.shift + basis.position,
        rho=runs.rho,
        lr=settings.lr,
        momentum=settings.momentum,
        dampening=settings.dampening,
        nesterov=settings.nesterov,
        weight_decay=settings.update_decay,
        steps=STEPS,
    )
    found = set(course.outcome.tolist())
    outcome = NAMES.get(found.pop(), "open") if len(found) == 1 else "open"
    if outcome != "open" and _model_error(objective, gap, basis, runs, course) > MODEL_ERROR:
        outcome = "open"
    return Forecast(outcome=outcome, steps=STEPS if outcome == "stays" else int(course.steps[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The eigenvectors [d, num_params] (rows) with the components [d] of the gradient and of the weights."""

    vectors: Tensor
    gradient: NDArray[np.float64]
    position: NDArray[np.float64]

    @classmethod
    def of(cls, spectrum: Spectrum, gap: Gap) -> Basis:
        assert spectrum.all_vectors is not None
        vectors = spectrum.all_vectors.double()
        gradient, position = ((vectors @ v).cpu().numpy() for v in (gap.here.gradient, gap.here.x))
        return cls(vectors=vectors, gradient=gradient, position=position)

    def lift(self, components: NDArray[np.float64]) -> Tensor:
        """The vector [num_params] with these components [d]."""
        return torch.from_numpy(components).to(self.vectors) @ self.vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The point itself, first, and what is nearby.

    Attributes:
        lam, gradient, shift: [runs, d] eigenvalues, gradient and displacement from the point, by components.
        rho: [runs].
    """

    lam: NDArray[np.float64]
    gradient: NDArray[np.float64]
    shift: NDArray[np.float64]
    rho: NDArray[np.float64]


def _nearby(spectrum: Spectrum, basis: Basis, gap: Gap, settings: MeasureSettings) -> Runs:
    """The point, seeded in every component; rho ± SHIFT; eigenvalues at either end of their bars; shifted starts."""
    rng = np.random.default_rng(settings.seed)
    shape = (5 + STARTS, len(spectrum.all_values))
    lam, rho = np.tile(np.array(spectrum.all_values), (shape[0], 1)), np.full(shape[0], settings.rho)
    bar = max(e.spread() for e in (*spectrum.top, *spectrum.bottom))
    lam[3] += bar
    lam[4] -= bar
    rho[1:3] *= 1.0 + SHIFT, 1.0 - SHIFT
    top = float(np.abs(lam[0]).max())
    critical = gap.here.norm <= spectrum.rounding * float(np.linalg.norm(basis.position))
    size = NEAR_TOP * settings.rho if critical else SEED_SHARE * gap.here.norm / top
    noise = rng.standard_normal(shape)
    shift = size * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    gradient = np.tile(basis.gradient, (shape[0], 1))
    gradient[5:] *= 1.0 + SHIFT * rng.uniform(-1.0, 1.0, (STARTS, shape[1]))
    error = (gap.grad_norm.sampling_error or 0.0) / math.sqrt(shape[1])
    gradient[5:] += error * rng.standard_normal((STARTS, shape[1]))
    return Runs(lam=lam, gradient=gradient * (not critical) + lam * shift, shift=shift, rho=rho)


def _model_error(objective: Objective, gap: Gap, basis: Basis, runs: Runs, course: Course) -> float:
    """How far the real update is from the quadratic's along the first run's path, relative to |g| + |He|: the worst.

    The objective is left at the gap's point.
    """
    worst, lam, rho = 0.0, runs.lam[0], float(runs.rho[0])
    for y in course.path[-PATH_POINTS:]:
        g = runs.gradient[0] + lam * y
        norm = float(np.linalg.norm(g))
        shifted = lam * g * (rho / norm if norm > 0 else 0.0)
        x = gap.here.x + basis.lift(runs.shift[0] + y)
        objective.move_to(x)
        real = objective.gradient()[1]
        length = float(real.norm())
        objective.move_to(x + (rho / length) * real if length > 0 else x)
        miss = (basis.vectors @ objective.gradient()[1]).cpu().numpy() - g - shifted
        worst = max(worst, float(np.linalg.norm(miss)) / (norm + float(np.linalg.norm(shifted))))
    objective.move_to(gap.here.x)
    return worst
