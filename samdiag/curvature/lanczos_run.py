"""One thick-restart (block) Lanczos run: its state, a step, a restart, and what it knows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from samdiag.curvature.certificate import Certificate, Transfer
from samdiag.curvature.krylov_basis import KrylovBasis, lengths, normalised
from samdiag.curvature.ritz import KrylovSpectrum, Matvec, RitzEnds, allowed_residual, found_pairs

BREAKDOWN = 10.0  # units of eps: relative residual norm below which the Krylov space is invariant to rounding
CERTIFIED = 0.05  # of an end: how much further out an eigenvalue may lie when a run counts as converged
FLAT = 1e-3  # of the spectral radius: an end smaller than this is held to this
PROBABILITY = 0.99  # of that certificate
RANDOM_PART = 0.3  # length of the random part beside a known start vector: what keeps the probability bound alive


@dataclass(slots=True, kw_only=True)
class LanczosRun:
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
    def next_row(self) -> Tensor:
        """The first row [dim] of the block that the next step takes; before any step the start vector."""
        row: Tensor = self._next[0]
        return row

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values [size], ascending, and their coordinates in the basis as columns [size, size]."""
        return self._solve()

    @property
    def full(self) -> bool:
        return self.basis.size + len(self._next) > self.basis.capacity

    def has_room(self, max_products: int) -> bool:
        """Whether one more step is within the products and the dimension."""
        block = len(self._next)
        return self.products + block <= max_products and self.basis.size + block <= self.basis.dim

    def step(self) -> None:
        """One product per row of the residual block, orthogonalised; T and S grow."""
        rows, old = self._next, self.basis.size
        self.basis.append(rows)
        self.products += len(rows)
        self._solved = None
        image = self.matvec(rows).to(rows.dtype)
        image = image.clone() if image.data_ptr() == rows.data_ptr() else image
        self._scale = max(self._scale, float(lengths(image).max()))
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
        if len(gone) == len(following) and self._certificate.final is None:
            self._coupling = torch.zeros(len(following), self.basis.size, dtype=torch.float64)
            self._coupling[:, old:] = factor
            self._certificate.final = self._transfer()
        for i in gone if self.basis.size < self.basis.dim else []:
            self.breakdowns += 1
            factor[i] = 0.0
            following[i] = 0.0
            following[i] = self._fresh(following)
        self._next = following
        self._coupling = torch.zeros(len(following), self.basis.size, dtype=torch.float64)
        self._coupling[:, old:] = factor

    def _random(self) -> Tensor:
        draw: Tensor = torch.randn(self.basis.dim, generator=self.generator, dtype=torch.float64)
        unit: Tensor = draw / torch.linalg.vector_norm(draw)
        return unit.to(device=self.basis.device, dtype=self.basis.dtype)

    def _fresh(self, others: Tensor) -> Tensor:
        """A random unit vector orthogonal to the basis and to `others`: the restart that finds repeated eigenvalues."""
        row = self._random()[None]
        for _ in range(2):
            self.basis.orthogonalise(row)
            row -= (row @ others.T) @ others
            normalised(row)
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

    def is_certified(self) -> bool:
        """Whether nothing lies further out than CERTIFIED of either end; True where the start can prove no more."""
        if self._certificate.final is not None:
            return True
        values, _ = self._solve()
        low, high = float(values[0]), float(values[-1])
        least = FLAT * max(abs(low), abs(high))
        below, above = self.bounds(PROBABILITY)
        return low - below <= CERTIFIED * max(abs(low), least) and above - high <= CERTIFIED * max(abs(high), least)

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
            residuals[0] <= allowed_residual(theta[0], scale, self.tol)
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
        k, complete = len(ends.bottom), self.basis.size == self.basis.dim

        def lift(columns: Tensor) -> Tensor:
            return normalised(self.basis.combine(columns))

        return found_pairs(
            ends,
            self.tol,
            bottom_vectors=lift(vectors[:, :k]),
            top_vectors=lift(vectors.flip(1)[:, :k]),
            stopped=stopped,
            restarts=self.restarts,
            all_values=values.tolist() if complete else None,
            all_vectors=lift(vectors) if complete else None,
        )


def _orthonormal_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal rows Q [p, dim] and the host's F [p, p] with rows = Fᵀ Q; of one row simply its direction."""
    if len(rows) == 1:
        length = lengths(rows)
        factor = length.cpu().reshape(1, 1)
        return (rows / length.to(rows.dtype) if float(factor) > 0 else rows), factor
    q, r = torch.linalg.qr(rows.T)
    return q.T.contiguous(), r.to(device="cpu", dtype=torch.float64)
