"""The SAM Jacobian: products for every variant, its relevant eigenvalues, and the multiplier of the iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samdiag.curvature.arnoldi import arnoldi
from samdiag.curvature.jacobian import reduced_sam_jacobian
from samdiag.curvature.objective import Objective
from samdiag.measure.ascent import Rule
from samdiag.measure.batch_update import Group
from samdiag.measure.gap import Gap
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.solving import most_eigenvalues
from samdiag.measure.spectrum import measure_spectrum
from samdiag.theory.edge import largest_multiplier
from samdiag.theory.hallucination import SIGNATURE_RATIO
from samdiag.types import Estimate

JACOBIAN_EIGENVALUES = 10  # per end of H+; what lies between is small against both ends
ZERO_MODE = 1e-5  # of the largest modulus: float32 products resolve no finer; see also `_zero`
DENSE = 64  # parameters up to which every column of J is computed: two products each
UNEXPLAINED = 0.5  # of the largest |F| that counts as vanishing: what is left moves the point on, but not far
ARNOLDI_PRODUCTS = 120  # two spectra of the reference networks

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamJacobian:
    """Eigenvalues of J (real, imaginary), largest modulus first, and what they mean for the iteration.

    Attributes:
        zero: the modulus below which one counts as a zero mode.
        multiplier: largest modulus of a multiplier of the linearised iteration over the live eigenvalues; None without
            lr.
        route: "dense" (every column), "arnoldi", or "reduced" (theory B3).
        surviving_gradient: |∇f| at the fixed point that J predicts, over |g|: near 1 beside a hallucination, near 0
            where the run comes to a critical point of f; None where J is not known as a matrix or predicts too far.
    """

    eigenvalues: tuple[tuple[float, float], ...]
    zero: float
    multiplier: Estimate | None
    route: str
    surviving_gradient: float | None = None


def jacobian_product(
    objective: Objective, x: Tensor, rule: Rule, *, weight_decay: float, groups: list[Group] | None
) -> Product:
    """v → J v [num_params], the derivative of the update that is run: x ↦ E_b F_b(x) + wd·x; float64.

    F_b = g+_b − alpha·(part of g_b orthogonal to g+_b), alpha = 0 but for gsam, and J of g+_b is H+_b·A_b (theory B2).
    Two Hessian products of every batch per call. The objective is left at x.

    Args:
        objective: the loss.
        x: [num_params] the point; its gradient must not vanish for a variant that normalises.
        rule: the ascent.
        weight_decay: of the update.
        groups: the batches that make an ascent each; None: all samples together.

    Source: theory B2, B6; checked against central differences for every variant.
    """
    together: list[Group] = [list(zip(objective.batches, objective.counts, strict=True))]
    chosen = together if groups is None else groups
    total = sum(count for group in chosen for _, count in group)

    def product(v: Tensor) -> Tensor:
        result = weight_decay * v.double()
        for group in chosen:
            share = sum(count for _, count in group) / total
            result = result + share * _group_product(objective, x, rule, group, v)
        objective.move_to(x)
        return result

    return product


def _group_product(objective: Objective, x: Tensor, rule: Rule, group: Group, v: Tensor) -> Tensor:
    objective.move_to(x)
    _, g = objective.gradient_of(group)
    ascent = rule.at(x, g)
    if ascent.bracket is None:
        return torch.zeros_like(x)  # this batch has no gradient, and its displacement no derivative
    hv = objective.product_of(group, v).double()
    objective.move_to(x + ascent.displacement)
    jv = objective.product_of(group, ascent.bracket(v.double(), hv)).double()
    if ascent.mix.alpha == 0:
        return jv
    return ascent.mix.derivative(g, objective.gradient_of(group)[1], hv, jv)


def measure_jacobian(
    objective: Objective,
    gap: Gap,
    rule: Rule,
    settings: MeasureSettings,
    *,
    curvature: float = 0.0,
    groups: list[Group] | None = None,
    outer: bool = False,
) -> SamJacobian | None:
    """J's relevant eigenvalues at the gap's point, or None where u is undefined; the objective is left at x.

    Every column up to DENSE parameters. Above, with all samples in one ascent, the cheap route of theory B3: H+
    reduced to both ends of its spectrum. Arnoldi for mini-batches, for gsam, and where the iteration's multiplier is
    asked for: the cheap route leaves out the bulk, which is of no account where g+ vanishes and may count elsewhere.

    Args:
        curvature: largest |lam(H)| at x, which says what counts as a zero mode.
        groups: the batches that make an ascent each; None: all samples together.
        outer: take Arnoldi even where the cheap route would do.
    """
    if gap.ascent.bracket is None:
        return None
    decay, dim = settings.update_decay, objective.num_params
    vanishing = (gap.update_ratio.value or 0.0) < SIGNATURE_RATIO
    mixed = gap.ascent.mix.alpha != 0 and not vanishing
    if not mixed:
        rule = replace(
            rule, alpha=0.0
        )  # where g+ vanishes GSAM's direction has no derivative, and it hovers about SAM's
    product = jacobian_product(objective, gap.here.x, rule, weight_decay=decay, groups=groups)
    errors: list[float] | None = None
    matrix: NDArray[np.float64] | None = None
    basis = torch.eye(dim if dim <= DENSE else 0, dtype=torch.float64, device=objective.device)
    if dim <= DENSE:
        matrix, route = torch.stack([product(e) for e in basis], dim=1).cpu().numpy(), "dense"
    elif groups is None and not mixed and not outer:
        (matrix, basis), route = _reduced(objective, gap, settings), "reduced"
    if matrix is not None:
        values = [complex(v) for v in np.linalg.eigvals(matrix)]
    else:
        generator = torch.Generator().manual_seed(settings.seed + 2)
        found = arnoldi(product, dim, max_products=ARNOLDI_PRODUCTS, tol=settings.tol, generator=generator)
        values, errors, route = found.values, found.residuals, "arnoldi"
    largest = max((abs(v) for v in values), default=0.0)
    order = sorted(range(len(values)), key=lambda i: -abs(values[i]))
    zero = _zero(gap, largest, curvature, decay)
    return SamJacobian(
        eigenvalues=tuple((values[i].real, values[i].imag) for i in order),
        zero=zero,
        multiplier=_multiplier(values, errors, zero, settings),
        route=route,
        surviving_gradient=None
        if matrix is None or groups is not None
        else _surviving_gradient(objective, gap, matrix, basis, zero, decay),
    )


def _surviving_gradient(
    objective: Objective, gap: Gap, matrix: NDArray[np.float64], basis: Tensor, zero: float, weight_decay: float
) -> float | None:
    """|g − H p|/|g| at x − p, the fixed point of the update that J (`matrix` on the rows of `basis`) predicts.

    p solves J p = F with the zero modes left out. A run in a linear trap comes to a saddle with g and g+ vanishing
    together; at a hallucination g stays. None where the ends of J that are known leave more than UNEXPLAINED of F, or p
    reaches too far.

    Source: theory B1, B3 (D).
    """
    here, there = gap.here, gap.there
    update = there.gradient + weight_decay * here.x
    largest = float(np.linalg.norm(matrix, ord=2))
    if here.norm == 0 or largest == 0:
        return None
    solved = np.linalg.lstsq(matrix, (basis @ update).cpu().numpy(), rcond=zero / largest)[0]
    p = torch.from_numpy(solved).to(basis) @ basis
    left = update - torch.from_numpy(matrix @ solved).to(basis) @ basis
    if float(torch.linalg.vector_norm(left)) > UNEXPLAINED * here.norm * SIGNATURE_RATIO:
        return None
    if float(torch.linalg.vector_norm(p)) > float(torch.linalg.vector_norm(gap.ascent.displacement)):
        return None  # further than the perturbation itself: no linear prediction reaches there
    objective.move_to(here.x)
    return float(torch.linalg.vector_norm(here.gradient - objective.product(p).double())) / here.norm


def _zero(gap: Gap, largest: float, curvature: float, weight_decay: float) -> float:
    """The modulus up to which an eigenvalue of J is a zero mode.

    Zero modes come from a manifold of critical points through x+. A run that has not yet settled is beside the manifold
    of its fixed points, where a neutral direction reads |g+|/L, L the length over which it turns: the distance from x
    to the critical point behind it, about |g|/|lam(H)|. Seen on the ring and on tanh networks, which would read as
    repelling.

    Args:
        gap: the point.
        largest: modulus of J's largest eigenvalue.
        curvature: largest |lam(H)| at x.
        weight_decay: of the update.

    Source: theory B3.
    """
    residual = float(torch.linalg.vector_norm(gap.there.gradient + weight_decay * gap.here.x))
    ratio = residual / gap.here.norm if gap.here.norm > 0 else 1.0
    return max(ZERO_MODE * largest, 2.0 * ratio * curvature if ratio < SIGNATURE_RATIO else 0.0)


def _reduced(objective: Objective, gap: Gap, settings: MeasureSettings) -> tuple[NDArray[np.float64], Tensor]:
    """L VᵀAV for the ends of H+, and V's rows [k, num_params] (theory B3)."""
    bracket = gap.ascent.bracket
    assert bracket is not None
    objective.move_to(gap.there.x)
    spectrum = measure_spectrum(
        objective,
        num_eigenvalues=most_eigenvalues(objective, max(JACOBIAN_EIGENVALUES, settings.num_eigenvalues)),
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

    return reduced_sam_jacobian(values, vectors, image, settings.update_decay), vectors.double()


def _multiplier(
    values: list[complex], errors: list[float] | None, zero: float, settings: MeasureSettings
) -> Estimate | None:
    """The largest |r| over the live eigenvalues, and what the residuals may add to it."""
    if settings.step_size is None:
        return None

    def factor(mu: complex) -> float:
        return largest_multiplier(mu, settings.step_size or 0.0, settings.momentum, nesterov=settings.nesterov)

    live = [i for i, v in enumerate(values) if abs(v) > zero]
    if not live:
        return Estimate(value=factor(0.0))
    worst = max(live, key=lambda i: factor(values[i]))
    value = factor(values[worst])
    error = 0.0
    if errors is not None:
        moved = (values[worst] + shift * errors[worst] for shift in (1, -1, 1j, -1j))
        error = max(abs(factor(mu) - value) for mu in moved)
    return Estimate(value=value, error=error)
