"""Eigenvalues of a sample held against its other half: their bias taken off, and an interval for all the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from samdiag.curvature.batches import cut_into
from samdiag.curvature.memory import affordable_vectors
from samdiag.curvature.objective import Objective
from samdiag.measure.statistics import BatchValues
from samdiag.measure.stopping import IRRELEVANT
from samdiag.theory.sampling import eigenvalue_bias, interval_error, unseen
from samdiag.types import Estimate

Pieces = list[tuple[Any, int]]

FEWEST_PIECES = 8  # batches are cut into at least so many: with six degrees of freedom Student's t is 2.4, with two 4.3
SHARE = 0.3  # of the products behind the eigenvectors: what fitting them again on two halves may cost
FEWEST_PRODUCTS = 8  # two to begin with, two to look at the other half, two steps for either end
TOP, BOTTOM = -1, 0  # places in a list of ascending eigenvalues
FITTED = 0.05  # relative residual on a half: in − out is then 95 % and more of what it becomes in the end


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """One end of the spectrum on two halves of the samples.

    Attributes:
        inside: mean over the halves of q_AᵀH_A q_A, q_A fitted on A.
        outside: mean over the halves of q_AᵀH_B q_A: unbiased for a Rayleigh quotient of the whole Hessian.
        standard_error: of `outside`, over batches, finite-population corrected.
        degrees: degrees of freedom of that error.
        missing: mean over the halves of how far a fit that was not finished may be from its end.
    """

    inside: float
    outside: float
    standard_error: float
    degrees: int
    missing: float


def corrected_ends(
    objective: Objective,
    top: tuple[Estimate, ...],
    top_vectors: Tensor,
    bottom: tuple[Estimate, ...],
    bottom_vectors: Tensor,
    *,
    population: int | None,
    products: int,
) -> tuple[tuple[Estimate, ...], tuple[Estimate, ...]]:
    """Both ends with the sample's bias taken off and 95 % intervals for the Hessian on all the data.

    The first eigenvalue of either end is measured on two halves (`hold_out`); those behind it are moved by the same
    amount and get its doubt on top of their own standard error. Where all the data were analysed nothing changes;
    samples that cannot be halved keep their bias, and Student's t widens their standard errors.

    Args:
        objective: at the point; its kept graphs are dropped, because each half keeps its own.
        top, top_vectors: estimates on these samples, largest first, with unit rows [k, num_params].
        bottom, bottom_vectors: likewise, smallest first.
        population: size of the training set; None: much larger.
        products: full-data products that the eigenvectors took; the halves may cost SHARE of that.

    Source: theory H5; `theory.sampling.eigenvalue_bias`.
    """
    found = hold_out(
        objective,
        torch.stack([top_vectors[0], bottom_vectors[0]]),
        population=population,
        max_products=max(FEWEST_PRODUCTS, round(SHARE * products)),
    )
    if found is None:
        degrees = len(objective.counts) - 1
        return _widened(top, degrees), _widened(bottom, degrees)
    return (
        _corrected(top, found[0], 1.0, objective.num_samples, population),
        _corrected(bottom, found[1], -1.0, objective.num_samples, population),
    )


def bias_could_matter(top: Estimate, bottom: Estimate, *, edge: float | None, radius: float) -> bool:
    """Whether a verdict could change when the bias is taken off, which moves either end inward and never outward.

    Args:
        top, bottom: both ends on these samples.
        edge: curvature at the edge of stability; None: not known.
        radius: rho_eff; lambda_min far above −1/rho_eff decides nothing.
    """
    if edge is not None and edge <= top.high:
        return True
    return bottom.low < 0 and (radius <= 0 or bottom.low <= -IRRELEVANT / radius)


def hold_out(
    objective: Objective, ends: Tensor, *, population: int | None, max_products: int
) -> tuple[HeldOut, HeldOut] | None:
    """The top and the bottom of the spectrum fitted on each half of the samples and evaluated on the other.

    Args:
        objective: at the point; left there, its kept graphs dropped.
        ends: [2, num_params] eigenvectors of the largest and the smallest eigenvalue on all samples: the start.
        population: size of the training set.
        max_products: bound on the cost, in products over all samples.

    Returns:
        None where there is nothing to learn (every sample was analysed) or nothing to halve.
    """
    halves = halves_of(objective)
    affordable = affordable_vectors(objective.device, objective.num_params, objective.dtype)
    steps = min(max_products - 2, affordable // 2)  # two more look at the other half; V and HV are kept
    if halves is None or unseen(objective.num_samples, population) <= 0 or steps < 2:
        return None
    objective.drop_graphs()
    with objective.on(halves[0]) as a:
        fits_a = _fit(a, ends, steps)
    with objective.on(halves[1]) as b:  # one half's graphs at a time: the first ones are built again below
        fits_b = _fit(b, ends, steps)
        seen_b = [_look(fit, b) for fit in fits_a]
    with objective.on(halves[0]) as a:
        seen_a = [_look(fit, a) for fit in fits_b]
    top, bottom = (_joined(first, second, population) for first, second in zip(seen_b, seen_a, strict=True))
    return top, bottom


def halves_of(objective: Objective) -> tuple[Pieces, Pieces] | None:
    """Every other batch, cut first where there are few of them; None where fewer than two come to a half.

    Batches whose BatchNorm statistics are their own are not cut.
    """
    pieces: Pieces = list(zip(objective.batches, objective.counts, strict=True))
    if len(pieces) < FEWEST_PIECES and not objective.train_mode:
        size = max(objective.num_samples // FEWEST_PIECES, 1)
        pieces = [part for data, count in pieces for part in cut_into(data, count, size)]
    return (pieces[0::2], pieces[1::2]) if len(pieces) >= 4 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One eigenvector of one half: its value there, what it lacks, its curvature in the other half's batches."""

    inside: float
    missing: float
    outside: BatchValues


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ritz:
    """A Ritz pair with H q − theta q, its norm over |theta|, and how far theta may be from the eigenvalue."""

    value: float
    vector: Tensor
    remainder: Tensor
    residual: float
    missing: float


def _fit(half: Objective, ends: Tensor, steps: int) -> tuple[_Ritz, _Ritz]:
    """The top and the bottom on `half`, by Rayleigh–Ritz on a basis that grows by residuals."""
    basis = _Basis(half, ends, steps)
    last = None
    for _ in range(steps - len(ends)):
        open_ends = [end for end in (TOP, BOTTOM) if basis.ritz(end).residual > FITTED]
        if not open_ends:
            break
        last = next((end for end in open_ends if end != last), open_ends[0])  # in turn: the bottom needs more steps
        if not basis.add(basis.ritz(last).remainder):
            break
    return basis.ritz(TOP), basis.ritz(BOTTOM)


def _look(fit: _Ritz, other: Objective) -> _Look:
    """What the other half's batches say of that vector."""
    curvatures = BatchValues()

    def note(count: int, image: Tensor) -> None:
        curvatures.add(count, float(torch.dot(fit.vector, image)))

    other.product(fit.vector, note)
    return _Look(inside=fit.value, missing=fit.missing, outside=curvatures)


class _Basis:
    """Orthonormal rows V with their images HV: a Davidson basis without a preconditioner, i.e. a block Krylov space."""

    def __init__(self, objective: Objective, start: Tensor, capacity: int) -> None:
        self.objective, self.size = objective, 0
        self._rows, self._images = start.new_empty(capacity, start.shape[1]), start.new_empty(capacity, start.shape[1])
        for vector in start:
            self.add(vector)

    def ritz(self, end: int) -> _Ritz:
        """The pair at that end, TOP or BOTTOM."""
        rows, images = self._rows[: self.size], self._images[: self.size]
        small = (rows @ images.T).double().cpu()
        values, vectors = torch.linalg.eigh((small + small.T) / 2)
        column, value = vectors[:, end].to(rows), float(values[end])
        vector, image = column @ rows, column @ images
        remainder = image - value * vector
        size, largest = float(torch.linalg.vector_norm(remainder)), float(values.abs().max())
        gap = float((values[end] - values[-2 if end == TOP else 1]).abs()) if self.size > 1 else 0.0
        return _Ritz(
            value=value,
            vector=vector,
            remainder=remainder,
            residual=size / max(abs(value), 1e-6 * largest) if largest > 0 else 0.0,  # 1e-6: float32 has nothing finer
            missing=min(size, size**2 / gap) if gap > 0 else size,
        )

    def add(self, vector: Tensor) -> bool:
        """One product with what is new in `vector`; False where nothing is, or no room."""
        before = float(torch.linalg.vector_norm(vector))
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            vector = vector - self._rows[: self.size].T @ (self._rows[: self.size] @ vector)
        after = float(torch.linalg.vector_norm(vector))
        room = min(len(self._rows), self.objective.num_params)
        if after <= 100 * torch.finfo(vector.dtype).eps * before or self.size >= room:  # 100: what is left is rounding
            return False
        self._rows[self.size] = vector / after
        self._images[self.size] = self.objective.product(self._rows[self.size])
        self.size += 1
        return True


def _joined(first: _Look, second: _Look, population: int | None) -> HeldOut:
    """Both halves' looks as one, weighted by the samples looked at."""
    counts = [sum(look.outside.counts) for look in (first, second)]
    samples = sum(counts)
    shares = [count / samples for count in counts]
    parts = [n * (v - look.outside.mean) ** 2 for look in (first, second) for n, v in look.outside.pairs()]
    degrees = len(parts) - 2
    return HeldOut(
        inside=shares[1] * first.inside + shares[0] * second.inside,
        outside=shares[0] * first.outside.mean + shares[1] * second.outside.mean,
        standard_error=math.sqrt(math.fsum(parts) / degrees / samples * unseen(samples, population)),
        degrees=degrees,
        missing=(first.missing + second.missing) / 2.0,
    )


def _corrected(
    estimates: tuple[Estimate, ...], end: HeldOut, outward: float, num_samples: int, population: int | None
) -> tuple[Estimate, ...]:
    """The estimates less the first one's bias, each with half of a 95 % interval as its sampling error.

    An unfinished fit lacks between 0 and `missing` inside and as much outside: half of the sum is added to in − out.
    """
    bias = eigenvalue_bias(end.inside + outward * end.missing, end.outside, num_samples, population)
    found = []
    for i, estimate in enumerate(estimates):
        own = estimate.sampling_error if i and estimate.sampling_error is not None else end.standard_error
        found.append(
            replace(
                estimate,
                value=None if estimate.value is None else estimate.value - bias,
                sampling_error=interval_error(own, end.degrees, bias),
                bias=bias,
            )
        )
    return tuple(found)


def _widened(estimates: tuple[Estimate, ...], degrees: int) -> tuple[Estimate, ...]:
    """The estimates with half of a Student's interval in place of a standard error."""
    return tuple(
        replace(e, sampling_error=interval_error(e.sampling_error, degrees, 0.0)) if e.sampling_error else e
        for e in estimates
    )
