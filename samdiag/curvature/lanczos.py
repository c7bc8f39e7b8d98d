"""Both ends of a symmetric operator's spectrum from products alone: thick-restart (block) Lanczos with full
reorthogonalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samdiag.curvature.certificate import Certificate, Transfer
from samdiag.curvature.complete import dense_eigenpairs
from samdiag.curvature.krylov_basis import KrylovBasis

DENSE_LIMIT = 256  # up to this dimension d products with unit vectors give the whole spectrum, multiplicities included
SOLVE_EVERY = 4  # steps between two solutions of the small problem: it costs the host, not the device
SOLVE_SHARE = 16  # … and steps over this, once the small problem has grown: its cost is cubic
BREAKDOWN = 10.0  # units of eps: relative residual norm below which the Krylov space is invariant to rounding
OTHERS_TOLERANCE = 0.1  # residual asked of the eigenvalues behind the first at each end, relative to themselves
RANDOM_PART = 0.3  # length of the random part beside a known start vector: what keeps the probability bound alive
EXTRA = 8  # basis vectors beyond 2k below which a restarted run would hardly move

Matvec = Callable[[Tensor], Tensor]
Decided = Callable[["RitzEnds"], bool]
Progress = Callable[["RitzEnds"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RitzEnds:
    """Ritz values at both ends with their residuals; ascending at the bottom, descending at the top (host floats).

    `bounds(probability)` are numbers below and above the whole spectrum, each with that probability.
    """

    bottom: list[float]
    bottom_residuals: list[float]
    top: list[float]
    top_residuals: list[float]
    steps: int = 0
    bounds: Callable[[float], tuple[float, float]] = lambda _: (-math.inf, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class KrylovSpectrum:
    """Extremal Ritz pairs.

    Attributes:
        bottom: [k] ascending Ritz values; bottom_vectors [k, d].
        top: [k] descending; top_vectors [k, d].
        bottom_residuals, top_residuals: [k] ‖Hq − theta q‖ as the recurrence gives it.
        bottom_converged, top_converged: [k] whether each met the tolerance.
        steps: products taken.
        restarts: how often the basis was compressed to stay within its capacity.
        complete: the whole spectrum was found, so that nothing lies beyond either list.
        all_values: every eigenvalue, ascending, when complete; else empty.
        stopped: "converged", "decided" (the caller was certain before), "products" (none left), or what `stop` said.
        bounds: numbers below and above the whole spectrum, each with the probability it is asked for.
    """

    bottom: list[float]
    bottom_vectors: Tensor
    bottom_residuals: list[float]
    bottom_converged: list[bool]
    top: list[float]
    top_vectors: Tensor
    top_residuals: list[float]
    top_converged: list[bool]
    steps: int
    restarts: int
    complete: bool
    all_values: list[float]
    all_vectors: Tensor | None
    stopped: str
    bounds: Callable[[float], tuple[float, float]]

    @property
    def stopped_early(self) -> bool:
        return self.stopped == "decided"


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
    progress: Progress | None = None,
    capacity: int | None = None,
    block: int = 1,
    block_matvec: Matvec | None = None,
    start: Tensor | None = None,
    stop: Callable[[], str | None] | None = None,
) -> KrylovSpectrum:
    """The `num_eigenvalues` largest and smallest eigenpairs of a symmetric operator on R^dim.

    Each end is judged by its own residual relative to its own value: the first eigenvalue of either end to `tol`,
    those behind it to OTHERS_TOLERANCE; a value below 1e-6 of the spectral radius is held to that instead of to
    itself. Dimensions up to DENSE_LIMIT are solved completely.

    Args:
        matvec: [dim] → [dim], symmetric.
        dim: dimension.
        num_eigenvalues: k per end.
        tol: relative residual asked of the first eigenvalue of either end.
        max_products: bound on the products; past it the rest is returned as not converged.
        generator: source of the start vectors (on the CPU, so that devices agree).
        device, dtype: of the vectors.
        decided: stop as soon as this says that every decision that hangs on the spectrum is certain.
        progress: called with the present ends.
        capacity: basis vectors that may be held; a thick restart keeps the best Ritz vectors of both ends. At least
            `fewest_vectors(k, block)`. None: as many as there are products.
        block: vectors per step: a block finds eigenvalues of up to that multiplicity at once.
        block_matvec: [block, dim] → [block, dim]; one by one when it is not given.
        start: [s, dim] approximate eigenvectors of either end, from a neighbouring problem; a random part is mixed in.
        stop: asked before every step; a reason ends the run with what is known.

    Source: Wu & Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal.
    Appl. 22 (2000); Golub & Van Loan, Matrix Computations, ch. 10; stopping rule per end: the bottom lies next to the
    bulk at zero, the top alone.
    """
    if dim <= DENSE_LIMIT:
        return _complete(matvec, dim, num_eigenvalues, device=device, dtype=dtype, progress=progress)
    most = min(max_products, dim)
    run = _Run(
        matvec=block_matvec if block > 1 and block_matvec else _row_by_row(matvec),
        basis=KrylovBasis(
            min(most, max(capacity or most, fewest_vectors(num_eigenvalues, block))), dim, device=device, dtype=dtype
        ),
        generator=generator,
        num_eigenvalues=num_eigenvalues,
        tol=tol,
    )
    run.begin(block, start)
    stopped = "products"
    solved = 0
    while run.products + block <= most and run.basis.size + block <= dim:
        reason = stop() if stop and run.products else None
        if reason:
            stopped = reason
            break
        run.step()
        last = run.products + block > most or run.full
        if not last and run.products - solved < max(SOLVE_EVERY, run.basis.size // SOLVE_SHARE):
            continue
        solved = run.products
        ends = run.ends()
        open_ends = worst_over_tolerance(ends, tol)
        if progress:
            progress(ends)
        early = decided is not None and open_ends > 1.0 and decided(ends)
        exhausted = not run.invariant or run.breakdowns > num_eigenvalues
        if early or (open_ends <= 1.0 and exhausted):
            stopped = "decided" if early else "converged"
            break
        if run.full and run.products + block <= most and run.basis.size + block <= dim:
            run.restart()
    return run.spectrum(stopped)


def _row_by_row(matvec: Matvec) -> Matvec:
    def block(rows: Tensor) -> Tensor:
        return matvec(rows[0])[None] if len(rows) == 1 else torch.stack([matvec(row) for row in rows])

    return block


def fewest_vectors(num_eigenvalues: int, block: int = 1) -> int:
    """The smallest basis with which a restarted run still converges: both ends' vectors and room to move."""
    return 2 * num_eigenvalues + EXTRA + 2 * block


def worst_over_tolerance(ends: RitzEnds, tol: float) -> float:
    """Worst residual over its tolerance; ≤ 1 when every eigenvalue asked for has converged."""
    scale = max(abs(ends.top[0]), abs(ends.bottom[0]))
    worst = 0.0
    for values, residuals in ((ends.bottom, ends.bottom_residuals), (ends.top, ends.top_residuals)):
        for i, (value, residual) in enumerate(zip(values, residuals, strict=True)):
            allowed = _allowed(value, scale, tol if i == 0 else max(tol, OTHERS_TOLERANCE))
            worst = max(worst, residual / allowed if allowed > 0 else (0.0 if residual == 0 else math.inf))
    return worst


def _allowed(value: float, scale: float, tol: float) -> float:
    return tol * max(abs(value), 1e-6 * scale)  # 1e-6: float32 products resolve nothing finer


@dataclass(slots=True, kw_only=True)
class _Run:
    """H V = V T + residual block: V in the basis, T and the couplings S of V to the residual block on the host."""

    matvec: Matvec  # [p, dim] → [p, dim]
    basis: KrylovBasis
    generator: torch.Generator
    num_eigenvalues: int
    tol: float
    products: int = 0
    restarts: int = 0
    breakdowns: int = 0
    invariant: bool = False  # the last step ended in a breakdown: every residual reads 0
    _t: Tensor = field(init=False)
    _coupling: Tensor = field(init=False)  # S [p, size]
    _next: Tensor = field(init=False)  # the residual block, orthonormal rows
    _first: tuple[int, int] = field(init=False)  # rows of the present cycle whose components the certificate chains
    _certificate: Certificate = field(init=False)
    _solved: tuple[int, Tensor, Tensor] | None = None
    _scale: float = 0.0

    def begin(self, block: int, start: Tensor | None) -> None:
        """The first block: random, or the sum of the known vectors with a random part."""
        capacity = self.basis.capacity
        self._t = torch.zeros(capacity, capacity, dtype=torch.float64)
        self._next = torch.zeros(block, self.basis.dim, device=self.basis.device, dtype=self.basis.dtype)
        share = 1.0
        for i in range(block):
            row = self._random()
            if start is not None and len(start[i::block]):
                known = start[i::block].to(row).sum(dim=0)
                row = known / torch.linalg.vector_norm(known) + RANDOM_PART * row
                length = float(torch.linalg.vector_norm(row))
                share = RANDOM_PART / length if i == 0 else share
            self._next[i] = row
        self._next = _orthonormal_rows(self._next)[0]
        self._coupling = torch.zeros(block, 0, dtype=torch.float64)
        self._first = (0, 1)  # the first start vector alone is enough for the bound
        self._certificate = Certificate(dim=self.basis.dim, random_share=share)

    @property
    def full(self) -> bool:
        return self.basis.size + len(self._next) > self.basis.capacity

    def step(self) -> None:
        """One product per row of the residual block, orthogonalised; T and S grow."""
        rows, old = self._next, self.basis.size
        self.basis.append(rows)
        self.products += len(rows)
        self._solved = None
        image = self.matvec(rows).to(rows.dtype)
        image = image.clone() if image.data_ptr() == rows.data_ptr() else image
        self._scale = max(self._scale, float(torch.linalg.vector_norm(image, dim=1).max()))
        overlap = self.basis.orthogonalise(image, recent=2 * len(rows)).to(device="cpu", dtype=torch.float64)
        new = self.basis.size
        self._t[:new, old:new] = overlap
        self._t[old:new, :new] = overlap.T
        self._t[old:new, old:new] = (overlap[old:new] + overlap[old:new].T) / 2
        self._residual_block(image, old)

    def _residual_block(self, image: Tensor, old: int) -> None:
        """Orthonormal rows that span the image's rest, with its coordinates; what has vanished is drawn anew."""
        following, factor = _orthonormal_rows(image)
        limit = BREAKDOWN * torch.finfo(image.dtype).eps * self._scale
        gone = [i for i in range(len(following)) if float(torch.linalg.vector_norm(factor[i])) <= limit]
        self.invariant = bool(gone)
        if len(gone) == len(following) and self._certificate.invariant is None and self._scale > 0:
            self._certificate.invariant = self._invariant_bounds(limit)
        for i in gone if self.basis.size < self.basis.dim else []:
            self.breakdowns += 1
            factor[i] = 0.0
            following[i] = 0.0
            following[i] = self._fresh(following)
        self._next = following
        self._coupling = torch.zeros(len(following), self.basis.size, dtype=torch.float64)
        self._coupling[:, old:] = factor

    def _invariant_bounds(self, margin: float) -> tuple[float, float]:
        values = self._solve()[0]
        return float(values[0]) - margin, float(values[-1]) + margin

    def _random(self) -> Tensor:
        draw: Tensor = torch.randn(self.basis.dim, generator=self.generator, dtype=torch.float64)
        return (draw / torch.linalg.vector_norm(draw)).to(device=self.basis.device, dtype=self.basis.dtype)

    def _fresh(self, others: Tensor) -> Tensor:
        """A random unit vector orthogonal to the basis and to `others`: the restart that finds repeated eigenvalues."""
        row = self._random()[None]
        for _ in range(2):
            self.basis.orthogonalise(row)
            row -= (row @ others.T) @ others
            row /= torch.linalg.vector_norm(row)
        first: Tensor = row[0]
        return first

    def _solve(self) -> tuple[Tensor, Tensor]:
        n = self.basis.size
        if self._solved is None or self._solved[0] != n:
            self._solved = (n, *torch.linalg.eigh(self._t[:n, :n]))
        return self._solved[1], self._solved[2]

    def _residuals(self) -> Tensor:
        """‖Hq − theta q‖ of every Ritz pair: the length of its coupling to the residual block."""
        _, vectors = self._solve()
        lengths: Tensor = torch.linalg.vector_norm(self._coupling @ vectors, dim=0)
        return lengths

    def ends(self) -> RitzEnds:
        values, _ = self._solve()
        residuals = self._residuals()
        k = min(self.num_eigenvalues, len(values))
        return RitzEnds(
            bottom=values[:k].tolist(),
            bottom_residuals=residuals[:k].tolist(),
            top=values.flip(0)[:k].tolist(),
            top_residuals=residuals.flip(0)[:k].tolist(),
            steps=self.products,
            bounds=self.bounds,
        )

    def bounds(self, probability: float) -> tuple[float, float]:
        return self._certificate.bounds(self._transfer(), probability)

    def _transfer(self) -> Transfer:
        values, vectors = self._solve()
        return Transfer(theta=values, left=vectors[self._first[0] : self._first[1]], right=(self._coupling @ vectors).T)

    def restart(self) -> None:
        """Keeps the Ritz vectors nearest to the ends, more of them at the end that has further to go."""
        values, vectors = self._solve()
        room = max(self.basis.capacity // 2, 2 * self.num_eigenvalues)
        room = min(room, self.basis.capacity - len(self._next) - 1)
        ends = self.ends()
        scale = max(abs(float(values[0])), abs(float(values[-1])))
        done = [
            residuals[0] <= _allowed(theta[0], scale, self.tol)
            for theta, residuals in ((ends.bottom, ends.bottom_residuals), (ends.top, ends.top_residuals))
        ]
        fewest = min(self.num_eigenvalues + 1, room // 2)
        bottom = room // 2 if done[0] == done[1] else (fewest if done[0] else room - fewest)
        keep = [*range(bottom), *range(len(values) - (room - bottom), len(values))]
        self._certificate.transfers.append(self._transfer())
        self.basis.compress(vectors[:, keep])
        self._coupling = self._coupling @ vectors[:, keep]
        self._t.zero_()
        self._t[: len(keep), : len(keep)] = torch.diag(values[keep])
        self._first = (len(keep), len(keep) + len(self._next))
        self._solved = None
        self.restarts += 1

    def spectrum(self, stopped: str) -> KrylovSpectrum:
        values, vectors = self._solve()
        ends = self.ends()
        k = len(ends.bottom)
        complete = self.basis.size == self.basis.dim
        scale = max(abs(ends.top[0]), abs(ends.bottom[0]))

        def lift(columns: Tensor) -> Tensor:
            ritz = self.basis.combine(columns)
            unit: Tensor = ritz.div_(torch.linalg.vector_norm(ritz, dim=1, keepdim=True))
            return unit

        def met(all_values: list[float], residuals: list[float]) -> list[bool]:
            return [r <= _allowed(v, scale, self.tol) for v, r in zip(all_values, residuals, strict=True)]

        return KrylovSpectrum(
            bottom=ends.bottom,
            bottom_vectors=lift(vectors[:, :k]),
            bottom_residuals=ends.bottom_residuals,
            bottom_converged=met(ends.bottom, ends.bottom_residuals),
            top=ends.top,
            top_vectors=lift(vectors.flip(1)[:, :k]),
            top_residuals=ends.top_residuals,
            top_converged=met(ends.top, ends.top_residuals),
            steps=self.products,
            restarts=self.restarts,
            complete=complete,
            all_values=values.tolist() if complete else [],
            all_vectors=lift(vectors) if complete else None,
            stopped=stopped,
            bounds=self.bounds,
        )


def _orthonormal_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal rows Q [p, dim] and the host's F [p, p] with rows = Fᵀ Q; of one row simply its direction."""
    if len(rows) == 1:
        length = torch.linalg.vector_norm(rows)
        factor = length.to(device="cpu", dtype=torch.float64).reshape(1, 1)
        return (rows / length if float(factor) > 0 else rows), factor
    q, r = torch.linalg.qr(rows.T)
    return q.T.contiguous(), r.to(device="cpu", dtype=torch.float64)


def _complete(
    matvec: Matvec, dim: int, k: int, *, device: torch.device, dtype: torch.dtype, progress: Progress | None
) -> KrylovSpectrum:
    def tell(count: int) -> None:
        if progress:
            progress(RitzEnds(bottom=[], bottom_residuals=[], top=[], top_residuals=[], steps=count))

    values, rows = dense_eigenpairs(matvec, dim, device=device, dtype=dtype, tell=tell)
    k = min(k, dim)
    low, high = float(values[0]), float(values[-1])
    return KrylovSpectrum(
        bottom=values[:k].tolist(),
        bottom_vectors=rows[:k],
        bottom_residuals=[0.0] * k,
        bottom_converged=[True] * k,
        top=values.flip(0)[:k].tolist(),
        top_vectors=rows.flip(0)[:k],
        top_residuals=[0.0] * k,
        top_converged=[True] * k,
        steps=dim,
        restarts=0,
        complete=True,
        all_values=values.tolist(),
        all_vectors=rows,
        stopped="converged",
        bounds=lambda _: (low, high),
    )
