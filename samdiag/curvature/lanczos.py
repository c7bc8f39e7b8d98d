"""Both ends of a symmetric operator's spectrum from products alone: Lanczos with full reorthogonalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DENSE_LIMIT = 256  # up to this dimension d products with unit vectors give the whole spectrum, multiplicities included
SOLVE_EVERY = 4  # steps between two solutions of the small problem: it costs the host, not the device
REORTHOGONALISE_AGAIN = 1.0 / math.sqrt(
    2.0
)  # Daniel, Gragg, Kaufman & Stewart: second pass when the first cancelled more
BREAKDOWN = 10.0  # units of eps: relative residual norm below which the Krylov space is invariant to rounding
OTHERS_TOLERANCE = 0.1  # residual asked of the eigenvalues behind the first at each end, relative to themselves

Matvec = Callable[[Tensor], Tensor]
Decided = Callable[["RitzEnds"], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class RitzEnds:
    """Ritz values at both ends with their residual bounds; ascending at the bottom, descending at the top (host
    floats).
    """

    bottom: list[float]
    bottom_residuals: list[float]
    top: list[float]
    top_residuals: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class KrylovSpectrum:
    """Extremal Ritz pairs.

    Attributes:
        bottom: [k] ascending Ritz values; bottom_vectors [k, d].
        top: [k] descending; top_vectors [k, d].
        bottom_converged, top_converged: [k] whether each met the tolerance.
        steps: products taken.
        complete: the whole spectrum was found, so that nothing lies beyond either list.
        all_values: every eigenvalue, ascending, when complete; else empty.
        stopped_early: the caller's decision was certain before the tolerance was met.
    """

    bottom: list[float]
    bottom_vectors: Tensor
    bottom_converged: list[bool]
    top: list[float]
    top_vectors: Tensor
    top_converged: list[bool]
    steps: int
    complete: bool
    all_values: list[float]
    all_vectors: Tensor | None
    stopped_early: bool
    alpha: list[float]
    beta: list[float]  # of the first Krylov space: the polynomial behind the probability bound; empty when dense


def extremal_eigenpairs(
    matvec: Matvec,
    dim: int,
    *,
    num_eigenvalues: int,
    tol: float,
    max_products: int,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
    decided: Decided | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> KrylovSpectrum:
    """The `num_eigenvalues` largest and smallest eigenpairs of a symmetric operator on R^dim.

    Each end is judged by its own residual relative to its own value: the first eigenvalue of either end to `tol`,
    those behind it to OTHERS_TOLERANCE; a value below 1e-6 of the spectral radius is held to that instead of to
    itself. Dimensions up to DENSE_LIMIT are solved completely.

    Args:
        matvec: [dim] → [dim], symmetric.
        num_eigenvalues: k per end.
        tol: relative residual asked of the first eigenvalue of either end.
        max_products: bound on the products; past it the rest is returned as not converged.
        generator: source of the start vector (on the CPU, so that devices agree).
        decided: stop as soon as this says that every decision that hangs on the spectrum is certain.
        progress: called with (products so far, worst relative residual).

    Source: Golub & Van Loan, Matrix Computations, ch. 10; stopping rule per end: the bottom lies next to the bulk at
    zero, the top alone.
    """
    if dim <= DENSE_LIMIT:
        return _solve_dense(matvec, dim, num_eigenvalues, device=device, dtype=dtype, progress=progress)
    basis = _Basis(min(max_products, dim), dim, device=device, dtype=dtype, generator=generator)
    ends, early = None, False
    while basis.size < basis.capacity:
        basis.extend(matvec)
        if basis.size % SOLVE_EVERY and basis.size < basis.capacity:
            continue
        ends = basis.ritz_ends(num_eigenvalues)
        open_ends = _open_ends(ends, tol)
        if progress:
            progress(basis.size, open_ends)
        early = decided is not None and open_ends > 1.0 and decided(ends)
        if basis.beta[-1] == 0.0 and basis.breakdowns <= num_eigenvalues and basis.size < basis.capacity:
            continue  # every residual reads 0 right after a breakdown: go on, eigenvalues may be repeated
        if open_ends <= 1.0 or early:
            break
    return basis.spectrum(num_eigenvalues, tol, stopped_early=early)


def _met(value: float, residual: float, scale: float, tol: float) -> bool:
    return residual <= tol * max(abs(value), 1e-6 * scale)  # 1e-6: float32 products resolve nothing finer


def _open_ends(ends: RitzEnds, tol: float) -> float:
    """Worst residual over its tolerance; ≤ 1 when every eigenvalue asked for has converged."""
    scale = max(abs(ends.top[0]), abs(ends.bottom[0]))
    worst = 0.0
    for values, residuals in ((ends.bottom, ends.bottom_residuals), (ends.top, ends.top_residuals)):
        for i, (value, residual) in enumerate(zip(values, residuals, strict=True)):
            allowed = (tol if i == 0 else max(tol, OTHERS_TOLERANCE)) * max(abs(value), 1e-6 * scale)
            worst = max(worst, residual / allowed if allowed > 0 else (0.0 if residual == 0 else math.inf))
    return worst


class _Basis:
    """Orthonormal Lanczos vectors with the tridiagonal matrix: alpha, beta in float64 on the host."""

    def __init__(
        self, capacity: int, dim: int, *, device: torch.device, dtype: torch.dtype, generator: torch.Generator
    ) -> None:
        self.capacity, self.dim, self.generator = capacity, dim, generator
        self._rows = torch.empty(min(capacity, 32), dim, device=device, dtype=dtype)
        self.alpha: list[float] = []
        self.beta: list[float] = []  # beta[i] couples i and i+1; 0 after a breakdown
        self.raw_beta: list[float] = []  # the residual norms themselves, never 0
        self.breakdowns = 0
        self._breakdown = BREAKDOWN * torch.finfo(dtype).eps
        self._scale = 0.0
        self.size = 0
        self._next: Tensor | None = self._fresh()

    @property
    def vectors(self) -> Tensor:
        return self._rows[: self.size]

    def extend(self, matvec: Matvec) -> None:
        """One Lanczos step: one product, one or two passes of orthogonalisation."""
        assert self._next is not None
        if self.size == len(self._rows):
            more = min(len(self._rows), self.capacity - self.size)
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows[:more])])
        self._rows[self.size].copy_(self._next)
        v = self._rows[self.size]
        self.size += 1
        w = matvec(v).to(v.dtype)
        alpha = float(torch.dot(w, v))
        w_norm = float(torch.linalg.vector_norm(w))
        w, beta = self._orthogonalise(w)
        self.alpha.append(alpha)
        self._scale = max(self._scale, w_norm)
        self.raw_beta.append(max(beta, torch.finfo(v.dtype).eps * self._scale))
        if beta <= self._breakdown * self._scale or self.size == self.dim:  # invariant: go on in the complement
            self.breakdowns += 1
            beta = 0.0
            self._next = self._fresh() if self.size < self.dim else None
        else:
            self._next = w / beta
        self.beta.append(beta)

    def _orthogonalise(self, w: Tensor) -> tuple[Tensor, float]:
        before = float(torch.linalg.vector_norm(w))
        for _ in range(2):
            w = w - self.vectors.T @ (self.vectors @ w)
            after = float(torch.linalg.vector_norm(w))
            if after > REORTHOGONALISE_AGAIN * before:
                break
            before = after
        return w, after

    def _first_block(self) -> int:
        """Steps up to and including the first breakdown: one Krylov space of one random start."""
        return next((i + 1 for i, b in enumerate(self.beta) if b == 0.0), self.size)

    def _fresh(self) -> Tensor:
        """A random unit vector orthogonal to the basis: the start, and the restart that finds repeated eigenvalues."""
        w: Tensor = torch.randn(self.dim, generator=self.generator, dtype=torch.float64).to(self._rows)
        if self.size:
            for _ in range(2):
                w = w - self.vectors.T @ (self.vectors @ w)
        return w.div(torch.linalg.vector_norm(w))

    def _solve(self) -> tuple[Tensor, Tensor]:
        n = self.size
        t = torch.zeros(n, n, dtype=torch.float64)
        t.diagonal().copy_(torch.tensor(self.alpha, dtype=torch.float64))
        if n > 1:
            off = torch.tensor(self.beta[: n - 1], dtype=torch.float64)
            t.diagonal(1).copy_(off)
            t.diagonal(-1).copy_(off)
        values, vectors = torch.linalg.eigh(t)
        return values, vectors

    def ritz_ends(self, k: int) -> RitzEnds:
        values, vectors = self._solve()
        residuals = abs(self.beta[-1]) * vectors[-1].abs()
        k = min(k, self.size)
        return RitzEnds(
            bottom=values[:k].tolist(),
            bottom_residuals=residuals[:k].tolist(),
            top=values.flip(0)[:k].tolist(),
            top_residuals=residuals.flip(0)[:k].tolist(),
        )

    def spectrum(self, k: int, tol: float, *, stopped_early: bool) -> KrylovSpectrum:
        values, vectors = self._solve()
        ends = self.ritz_ends(k)
        k = len(ends.bottom)
        complete = self.size == self.dim
        scale = max(abs(ends.top[0]), abs(ends.bottom[0]))

        def lift(columns: Tensor) -> Tensor:
            ritz: Tensor = columns.T.to(self._rows) @ self.vectors
            return ritz.div_(torch.linalg.vector_norm(ritz, dim=1, keepdim=True))

        def met(all_values: list[float], residuals: list[float]) -> list[bool]:
            return [_met(v, r, scale, tol) for v, r in zip(all_values, residuals, strict=True)]

        return KrylovSpectrum(
            bottom=ends.bottom,
            bottom_vectors=lift(vectors[:, :k]),
            bottom_converged=met(ends.bottom, ends.bottom_residuals),
            top=ends.top,
            top_vectors=lift(vectors.flip(1)[:, :k]),
            top_converged=met(ends.top, ends.top_residuals),
            steps=self.size,
            complete=complete,
            all_values=values.tolist() if complete else [],
            all_vectors=lift(vectors) if complete else None,
            stopped_early=stopped_early,
            alpha=self.alpha[: self._first_block()],
            beta=self.raw_beta[: self._first_block()],
        )


def _solve_dense(
    matvec: Matvec,
    dim: int,
    k: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[int, float], None] | None,
) -> KrylovSpectrum:
    columns = []
    for i in range(dim):
        unit = torch.zeros(dim, device=device, dtype=dtype)
        unit[i] = 1.0
        columns.append(matvec(unit).to(dtype=torch.float64, device="cpu"))
        if progress:
            progress(i + 1, 0.0)
    matrix = torch.stack(columns)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    rows = vectors.T.to(device=device, dtype=dtype)
    k = min(k, dim)
    return KrylovSpectrum(
        bottom=values[:k].tolist(),
        bottom_vectors=rows[:k],
        bottom_converged=[True] * k,
        top=values.flip(0)[:k].tolist(),
        top_vectors=rows.flip(0)[:k],
        top_converged=[True] * k,
        steps=dim,
        complete=True,
        all_values=values.tolist(),
        all_vectors=rows,
        stopped_early=False,
        alpha=[],
        beta=[],
    )
