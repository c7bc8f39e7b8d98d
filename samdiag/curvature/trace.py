"""The trace and the Frobenius norm of a symmetric operator from few products: Hutch++, and Hutchinson beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samdiag.curvature.deflation import Deflation

PerBatch = Callable[[int, Tensor], None]
Matvec = Callable[[Tensor, PerBatch | None], Tensor]
Array = NDArray[np.float64]
PerBatchValues = tuple[tuple[int, float], ...]

# two-sided 95 % points of Student's t for 1, 2, … degrees of freedom; beyond the table within 2 % of the last
STUDENT = (
    *(12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
SCALED = 0.1  # of a probe's length: what orthogonalising a sketch must leave, else the direction is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """tr H and tr H² with standard errors over the random probes.

    Attributes:
        value, error: tr H and its standard error; inf from a single probe, 0 where the whole space was spanned.
        squared, squared_error: tr H², likewise.
        num_probes: behind the standard errors.
        products: products taken.
        per_batch: tr H_b of every batch with its sample count, where the products told it.
    """

    value: float
    error: float
    squared: float
    squared_error: float
    num_probes: int
    products: int
    per_batch: PerBatchValues = ()

    @property
    def half_width(self) -> float:
        """Half-width of the 95 % interval of tr H over the probes (Student's t)."""
        return self.error * student(self.num_probes - 1) if self.error else 0.0

    @property
    def squared_half_width(self) -> float:
        """The same of tr H²."""
        return self.squared_error * student(self.num_probes - 1) if self.squared_error else 0.0


def student(freedom: int) -> float:
    """The two-sided 95 % point of Student's t."""
    return math.inf if freedom < 1 else STUDENT[min(freedom, len(STUDENT)) - 1]


def hutch_plus_plus(
    product: Matvec,
    dim: int,
    *,
    num_products: int,
    generator: torch.Generator,
    like: Tensor,
    known: Deflation,
    known_batches: PerBatchValues = (),
    num_sketch: int | None = None,
) -> Trace:
    """Hutch++ with the known eigenpairs in the sketch for nothing: error of order 1/products, not its root.

    The standard error is the larger of the probes' scatter and of what the norm of the rest says: ten values alone
    scatter too much to be believed.

    A third of the products sketch the range of H outside the known span, a third give the trace on the sketch exactly,
    a third are Hutchinson probes on what is left. Unbiased for tr H and for tr H², given the known pairs.

    Args:
        product: ([d], each) → [d]; `each(count, product of the batch)` may be called for every batch.
        dim: d.
        num_products: at least 6.
        generator: on the CPU.
        like: a vector [d] of the device and type to work in.
        known: pairs whose images are already at hand; they cost nothing.
        num_sketch: columns of the sketch; None: a third of the products. Each costs two products, and pays where the
            rest has large eigenvalues that are not known: see `best_sketch`.
        known_batches: (count, Σ vᵀH_b v over the known vectors) of every batch, where that is known.

    Source: Meyer, Musco, Musco & Woodruff, Hutch++: Optimal stochastic trace estimation, SOSA 2021, algorithm 1.
    """
    sketched = num_products // 3 if num_sketch is None else num_sketch
    columns = [product(known.project(_signs(dim, generator, like)), None) for _ in range(sketched)]
    basis = _orthonormal([known.project(c) for c in columns], known)
    batches = BatchSums()
    value = float(known.values.sum()) if len(known.values) else 0.0
    squared = float((known.images.double() ** 2).sum())
    for q in basis:
        image = product(q, batches.along(q, 1.0)).double()
        value += float(torch.dot(q.double(), image))
        squared += float((image**2).sum())
    count = max(1, num_products - sketched - len(basis))
    rest = dim - len(known.values) - len(basis)
    parts, squares, left = [], [], []
    if rest > 0:
        rows = torch.stack(basis) if basis else like[None][:0]
        for _ in range(count):
            g = known.project(_signs(dim, generator, like))
            g = g - rows.T @ (rows @ g)
            image = product(g, batches.along(g, 1.0 / count)).double()
            parts.append(float(torch.dot(g.double(), image)))
            squares.append(float((image**2).sum()))
            image = known.project(image.to(like))
            left.append(float(((image - rows.T @ (rows @ image)).double() ** 2).sum()))
    model = math.sqrt(2.0 * _mean(left) / count)  # variance 2(‖rest‖_F² − Σ diagonal²) at most, from the same probes
    return Trace(
        value=value + _mean(parts),
        error=max(_standard_error(parts), model) if parts else 0.0,
        squared=squared + _mean(squares),
        squared_error=_standard_error(squares),
        num_probes=len(parts),
        products=sketched + len(basis) + len(parts),
        per_batch=added(batches.totals(), known_batches) if len(known.values) else batches.totals(),
    )


def best_sketch(sizes: Array, counts: Array, num_products: int) -> int:
    """How many of `num_products` to sketch with, from what is known of the rest's spectrum: 0 to a third.

    Taking the s largest |eigenvalues| out leaves num_products − 2s probes for the others. A sketch from single products
    is not that good, so that it must promise half the variance.

    Args:
        sizes: [n] |eigenvalues| of the rest.
        counts: [n] how many there are of each; need not be whole.

    Source: Persson, Cortinovis & Kressner, Improved variants of the Hutch++ algorithm, SIAM J. Matrix Anal. Appl. 43
    (2022): the split between sketch and probes follows from the spectrum.
    """
    order = np.argsort(-sizes)
    squares, held = sizes[order] ** 2, np.concatenate([[0.0], counts[order].cumsum()])
    mass = np.concatenate([[0.0], (squares * counts[order]).cumsum()])

    def variance(s: int) -> float:
        return float(mass[-1] - np.interp(s, held, mass)) / (num_products - 2 * s)

    best = min(range(num_products // 3 + 1), key=variance)
    return best if variance(best) < 0.5 * variance(0) else 0


def hutchinson(product: Matvec, dim: int, *, num_products: int, generator: torch.Generator, like: Tensor) -> Trace:
    """Hutchinson's estimator with random signs: the mean of zᵀHz.

    Source: Hutchinson (1990); its variance 2(‖H‖_F² − Σ H_ii²) is what Hutch++ gets rid of.
    """
    parts, squares, batches = [], [], BatchSums()
    for _ in range(num_products):
        z = _signs(dim, generator, like)
        image = product(z, batches.along(z, 1.0 / num_products)).double()
        parts.append(float(torch.dot(z.double(), image)))
        squares.append(float((image**2).sum()))
    return Trace(
        value=_mean(parts),
        error=_standard_error(parts),
        squared=_mean(squares),
        squared_error=_standard_error(squares),
        num_probes=num_products,
        products=num_products,
        per_batch=batches.totals(),
    )


class BatchSums:
    """vᵀH_b v of every batch, summed over the vectors with their weights."""

    def __init__(self) -> None:
        self._sums: list[float] = []
        self._counts: list[int] = []
        self._broken = False

    def along(self, v: Tensor, weight: float) -> PerBatch:
        """What a product along `v` is to be given as `each`."""
        position = 0
        wide = v.double()

        def note(count: int, own: Tensor) -> None:
            nonlocal position
            if position == len(self._sums):
                self._sums.append(0.0)
                self._counts.append(count)
            self._broken |= self._counts[position] != count  # a batch was halved on the way
            self._sums[position] += weight * float(torch.dot(wide, own.double()))
            position += 1

        return note

    def totals(self) -> PerBatchValues:
        """(count, sum) of every batch; empty where the batches changed on the way."""
        return () if self._broken else tuple(zip(self._counts, self._sums, strict=True))


def added(first: PerBatchValues, second: PerBatchValues) -> PerBatchValues:
    """The values of equal batches summed; empty where the batches are not the same."""
    if [count for count, _ in first] != [count for count, _ in second]:
        return ()
    return tuple((count, a + b) for (count, a), (_, b) in zip(first, second, strict=True))


def _signs(dim: int, generator: torch.Generator, like: Tensor) -> Tensor:
    signs: Tensor = torch.randint(0, 2, (dim,), generator=generator).to(like) * 2 - 1
    return signs


def _orthonormal(columns: list[Tensor], known: Deflation) -> list[Tensor]:
    """Orthonormal vectors in the span of the columns, outside the known one; fewer where that is smaller."""
    basis: list[Tensor] = []
    for column in columns:
        before = float(torch.linalg.vector_norm(column))
        v = column
        limit = SCALED * math.sqrt(torch.finfo(v.dtype).eps) * before
        for _ in range(2):
            v = known.project(v)
            if basis:
                rows = torch.stack(basis)
                v = v - rows.T @ (rows @ v)
        after = float(torch.linalg.vector_norm(v))
        if after > limit and after > 0:
            v = v / after
            if basis:
                rows = torch.stack(basis)
                v = v - rows.T @ (rows @ v)
                v = v / torch.linalg.vector_norm(v)
            basis.append(v)
    return basis


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _standard_error(values: list[float]) -> float:
    if not values:
        return 0.0
    if len(values) < 2:
        return math.inf
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
