"""The SAM Jacobian at a point whose shifted gradient vanishes: attractor or mere point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.jacobian import sam_jacobian_eigenvalues
from samdiag.curvature.objective import Objective
from samdiag.measure.gap import Gap
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import measure_spectrum

JACOBIAN_EIGENVALUES = 10  # per end of H+; what lies between is small against both ends
ZERO_MODE = 1e-5  # of the largest modulus: float32 products resolve no finer


@dataclass(frozen=True, slots=True, kw_only=True)
class SamJacobian:
    """Eigenvalues of J (real, imaginary), largest modulus first, and the modulus below which one counts as zero."""

    eigenvalues: tuple[tuple[float, float], ...]
    zero: float


def measure_jacobian(objective: Objective, gap: Gap, settings: MeasureSettings) -> SamJacobian | None:
    """J's relevant eigenvalues at the gap's point, or None where u is undefined; the objective is left at x."""
    bracket = gap.ascent.bracket
    if bracket is None:
        return None
    objective.move_to(gap.there.x)
    spectrum = measure_spectrum(
        objective,
        num_eigenvalues=max(JACOBIAN_EIGENVALUES, settings.num_eigenvalues),
        tol=settings.tol,
        max_products=settings.max_products,
        seed=settings.seed + 1,
        population=None,
    )
    objective.move_to(gap.here.x)
    if spectrum.all_vectors is not None:
        values, vectors = spectrum.all_values, spectrum.all_vectors
    else:
        values = [e.value or 0.0 for e in (*spectrum.top, *spectrum.bottom)]
        vectors = torch.cat([spectrum.top_vectors, spectrum.bottom_vectors])

    def image(v: Tensor) -> Tensor:
        return bracket(v, objective.product(v).double())

    found = sorted(sam_jacobian_eigenvalues(values, vectors, image, settings.weight_decay), key=abs, reverse=True)
    largest = max((abs(v) for v in found), default=0.0)
    return SamJacobian(eigenvalues=tuple((v.real, v.imag) for v in found), zero=ZERO_MODE * largest)
