"""Both ends of an expensive operator from few of its products, led by a cheap operator that is much like it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samdiag.curvature.krylov_basis import KrylovBasis, lengths, normalised
from samdiag.curvature.lanczos import go_on
from samdiag.curvature.lanczos_run import LanczosRun
from samdiag.curvature.preconditioner import Preconditioner
from samdiag.curvature.ritz import (
    OTHERS_TOLERANCE,
    Decided,
    KrylovSpectrum,
    Matvec,
    Progress,
    RitzEnds,
    allowed_residual,
    found_pairs,
)

LOOSE = 4.0  # the proof is driven until no eigenvalue lies below this times the lowest one: nearer costs more products
TIGHT = 1.2  # … and never nearer than this times the lowest one
STAGES = (1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 64.0)  # shifts, in units of the nearest, at which the proof is driven in turn
FLAT = 1e-4  # of the spectral radius: a lowest eigenvalue smaller than this is taken as this when the proof is driven
PROBABILITY = 0.99  # of that proof
GRID = 400  # shifts at which the proof is checked: 7 % apart over twelve decades
SEARCH = 24  # products after which a lead that has not led to both ends is given up
PROOF = 24  # products that the proof may take after that: beyond, it stays as loose as it is
FLOOR = 4.0  # units of eps·‖H v‖ per row, added to every residual of the proof: what the rows' rounding may hide


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """The finished run on the cheap operator.

    Attributes:
        preconditioner: from its Krylov space.
        start: [dim] its random unit start vector: what the proof is about.
        low, high: [dim] its lowest and highest Ritz vectors.
        products: of the cheap operator.
    """

    preconditioner: Preconditioner
    start: Tensor
    low: Tensor
    high: Tensor
    products: int


def find_lead(
    cheap: Matvec,
    dim: int,
    *,
    tol: float,
    max_products: int,
    capacity: int,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
    stop: Callable[[], str | None] | None = None,
) -> Lead | None:
    """Lanczos on the cheap operator until both of its ends are known to `tol`, or `stop` has a reason; None where the
    products run out first.
    """
    basis = KrylovBasis(min(capacity, max_products, dim), dim, device=device, dtype=dtype)
    run = LanczosRun(
        matvec=lambda rows: cheap(rows[0])[None], basis=basis, generator=generator, num_eigenvalues=1, tol=tol
    )
    run.begin(1, None)
    start = run.next_row.clone()
    ended = go_on(run, max_products, stop=stop)
    if ended == "products" or run.breakdowns or run.basis.size < 2:
        return None  # a reason to stop leaves a rough lead: better than none
    values, vectors = run.ritz()
    low, high = basis.combine(vectors[:, [0, -1]])
    return Lead(
        preconditioner=Preconditioner(basis=basis, theta=values, vectors=vectors),
        start=start,
        low=low,
        high=high,
        products=run.products,
    )


def led_eigenpairs(
    matvec: Matvec,
    lead: Lead,
    *,
    num_eigenvalues: int,
    tol: float,
    max_products: int,
    capacity: int,
    decided: Decided | None = None,
    proof_at: Callable[[float], float] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], str | None] | None = None,
) -> KrylovSpectrum | None:
    """The extremal eigenpairs of `matvec`, and a probabilistic bound below them, from a subspace that grows by what the
    worst residual asks for, preconditioned by the lead; None where the lead does not help.

    Eigenpairs: generalised Davidson. Proof: for a random unit vector v₀ and any x, an eigenvector u with eigenvalue
    lambda has u·v₀ = u·(v₀ − (lambda − H)x), so |u·v₀| is at most that residual; a random v₀ has |u·v₀| < delta with
    probability delta·√(2d/π) only. Where the Galerkin solution of (lambda − H)x = v₀ in the subspace has a residual
    below delta for every lambda ≤ lambda*, no eigenvalue lies there. The lead started from the same v₀, so that its
    own solution is nearly one of H.

    Args:
        matvec: [dim] → [dim], symmetric.
        lead: of the cheap operator.
        num_eigenvalues: k per end; only those in the subspace by then are returned.
        tol: relative residual asked of the first of either end, and where `decided` is None of all of them.
        max_products: bound on the products.
        capacity: rows that the subspace may take; it takes two per product.
        decided, progress, stop: as in `extremal_eigenpairs`.
        proof_at: for the lowest Ritz value, the number below which the proof is to show that no eigenvalue lies.

    Source: Morgan & Scott, Generalizations of Davidson's method, SIAM J. Sci. Stat. Comput. 7 (1986); the proof extends
    van Dorsselaer, Hochstenbach & van der Vorst (2000) from Krylov spaces to any subspace, and is ours.
    """
    space = _Subspace(
        matvec=matvec,
        lead=lead,
        capacity=min(capacity // 2, max_products),
        num_eigenvalues=num_eigenvalues,
        tol=tol,
        proof_at=proof_at or (lambda lowest: lowest - (LOOSE - 1.0) * abs(lowest)),
    )
    for row in (lead.high, lead.low, lead.start):
        space.grow(row)
    reason = stop() if stop else None
    if reason:
        return space.spectrum(reason)
    space.grow(lead.preconditioner.solve(space.proof_shift, lead.start[None])[0])
    while True:
        reason = stop() if stop else None
        ends = space.ends()
        if progress:
            progress(ends)
        if reason:
            return space.spectrum(reason)
        certain = decided is not None and decided(ends)
        open_pair = None if certain else space.worst(all_pairs=False)
        lost = open_pair is not None and space.products >= SEARCH
        if open_pair is None and decided is None:
            open_pair = space.worst(all_pairs=True)
        if open_pair is not None:
            direction: Tensor | None = space.correction(open_pair)
        else:
            direction = space.proof_step() if space.products < SEARCH + PROOF else None
        if direction is None:
            return space.spectrum("decided" if certain else "converged")
        if space.products >= max_products:
            return space.spectrum("products")
        if lost or (space.full and open_pair is not None):
            return None
        if space.full:
            return space.spectrum("decided" if certain else "converged")  # the proof stays as loose as it is
        space.grow(direction)


@dataclass(slots=True, kw_only=True)
class _Subspace:
    """Orthonormal V with T = V H Vᵀ and R = H V − T V, the part of the products outside; H symmetric."""

    matvec: Matvec
    lead: Lead
    capacity: int
    num_eigenvalues: int
    tol: float
    proof_at: Callable[[float], float]
    _v: KrylovBasis = field(init=False)
    _r: KrylovBasis = field(init=False)
    _t: Tensor = field(init=False)
    _ritz: tuple[Tensor, Tensor] = field(init=False)
    _stage: int = 0  # of the proof

    def __post_init__(self) -> None:
        start = self.lead.start
        self._v, self._r = (
            KrylovBasis(self.capacity, len(start), device=start.device, dtype=start.dtype) for _ in range(2)
        )
        self._t = torch.zeros(self.capacity, self.capacity, dtype=torch.float64)

    @property
    def products(self) -> int:
        return self._v.size

    @property
    def full(self) -> bool:
        return self._v.size >= self.capacity

    def grow(self, direction: Tensor) -> None:
        """One product: adds the part of `direction` [dim] that is new."""
        row = normalised(direction[None].clone())
        for _ in range(2):  # a correction may lie almost in the subspace
            self._v.orthogonalise(row)
            normalised(row)
        old = self._v.size
        self._v.append(row)
        image = self.matvec(row[0]).to(row.dtype)[None].clone()
        overlap = self._v.orthogonalise(image)[:, 0].to(device="cpu", dtype=torch.float64)
        self._t[: old + 1, old] = overlap
        self._t[old, : old + 1] = overlap
        if old:
            self._r.subtract(overlap[:old], row[0])  # row · H v_i = T[i, new]
        self._r.append(image)
        self._ritz = torch.linalg.eigh(self._t[: old + 1, : old + 1])

    # ------------------------------------------------------------ eigenpairs

    def ends(self, k: int = 1) -> RitzEnds:
        """The k first Ritz pairs of either end with true residuals."""
        values, vectors = self._ritz
        k = min(k, len(values))
        low = lengths(self._r.combine(vectors[:, :k]))
        high = lengths(self._r.combine(vectors.flip(1)[:, :k]))
        return RitzEnds(
            bottom=values[:k].tolist(),
            bottom_residuals=low.tolist(),
            top=values.flip(0)[:k].tolist(),
            top_residuals=high.tolist(),
            steps=self.products,
            bounds=self.bounds,
        )

    def worst(self, *, all_pairs: bool) -> int | None:
        """The position of the Ritz pair that is furthest from its tolerance; None when all have met it."""
        values = self._ritz[0]
        k = min(self.num_eigenvalues if all_pairs else 1, len(values))
        ends = self.ends(k)
        scale = max(abs(ends.top[0]), abs(ends.bottom[0]))
        n, worst, where = len(values), 1.0, None
        for positions, found, residuals in (
            (range(k), ends.bottom, ends.bottom_residuals),
            (range(n - 1, n - 1 - k, -1), ends.top, ends.top_residuals),
        ):
            for i, (position, value, residual) in enumerate(zip(positions, found, residuals, strict=True)):
                tol = self.tol if i == 0 else max(self.tol, OTHERS_TOLERANCE)
                ratio = residual / allowed_residual(value, scale, tol)
                if ratio > worst:
                    worst, where = ratio, position
        if where is None and all_pairs and n < 2 * self.num_eigenvalues:
            return 0  # not all that were asked for are in the subspace yet
        return where

    def correction(self, position: int) -> Tensor:
        """The direction [dim] that the residual of a Ritz pair asks for."""
        values, vectors = self._ritz
        column = vectors[:, [position]]
        shift = float(values[position])
        scale = float(values.abs().max())
        shift = math.copysign(max(abs(shift), 1e-6 * scale), shift)  # the lead's complement is at 0
        return self.lead.preconditioner.correction(shift, self._v.combine(column)[0], self._r.combine(column)[0])

    # ------------------------------------------------------------ proof

    @property
    def proof_shift(self) -> float:
        """The lambda* below which the proof is to show that nothing lies."""
        values = self._ritz[0]
        lowest = float(values[0])
        size = max(abs(lowest), FLAT * float(values.abs().max()))
        flat = FLAT * float(values.abs().max())  # below 0 in any case, where the lead's complement lies
        return min(self.proof_at(lowest), lowest - (TIGHT - 1.0) * size, -flat)

    def proof_step(self) -> Tensor | None:
        """The direction [dim] that the proof asks for next; None when it is complete, or at the end of what this
        precision can show.
        """
        while self._stage < len(STAGES):
            shift = self.proof_shift * STAGES[self._stage]
            residual = self._proof_residual(shift)
            if float(lengths(residual[None])[0]) > self._delta:
                return self.lead.preconditioner.solve(shift, residual[None])[0]
            self._stage += 1
        lowest = float(self._ritz[0][0])
        distances, residuals = self._proof_curve(-1.0)
        open_ones = (residuals > self._delta) & (distances > lowest - self.proof_shift)
        if not bool(open_ones.any()):
            return None
        shift = lowest - float(distances[int(torch.where(open_ones, residuals, -1.0).argmax())])
        residual = self._proof_residual(shift)
        if float(lengths(residual[None])[0]) <= self._delta:
            return None  # only the allowance for rounding is in the way
        return self.lead.preconditioner.solve(shift, residual[None])[0]

    @property
    def _delta(self) -> float:
        return (1.0 - PROBABILITY) * math.sqrt(math.pi / (2.0 * self._v.dim))

    def _start(self) -> Tensor:
        """The start vector's coordinates [size] in the Ritz basis; it lies in the subspace."""
        inside = self._v.coefficients(self.lead.start[None]).to(device="cpu", dtype=torch.float64)[:, 0]
        return self._ritz[1].T @ inside

    def _proof_residual(self, shift: float) -> Tensor:
        """v₀ − (H − shift)x [dim] for the Galerkin solution x in V."""
        values, vectors = self._ritz
        y = vectors @ (self._start() / (values - shift))[:, None]
        return -self._r.combine(y)[0]

    def _proof_curve(self, sign: float) -> tuple[Tensor, Tensor]:
        """Distances [GRID] from the end of the Ritz values, outwards, and the proof's residual there, with an allowance
        for rounding.
        """
        values, vectors = self._ritz
        n = len(values)
        outside = self._r.gram()
        end = float(values[0] if sign < 0 else values[-1])
        spread = max(float(values[-1] - values[0]), abs(end), 1e-300)
        distances = spread * torch.logspace(-6, 6, GRID, dtype=torch.float64)
        y = (self._start() / (end + sign * distances[:, None] - values)) @ vectors.T
        squared = ((y @ outside) * y).sum(dim=1)
        lengths = (self._t[:n, :n].square().sum(dim=0) + outside.diagonal()).sqrt()
        rounding = FLOOR * torch.finfo(self._v.dtype).eps * torch.linalg.vector_norm(y * lengths, dim=1)
        return distances, squared.clamp(min=0.0).sqrt() + rounding

    def bounds(self, probability: float) -> tuple[float, float]:
        """Numbers below and above the whole spectrum with that probability, as far as the subspace proves them."""
        values = self._ritz[0]
        delta = self._delta * (1.0 - probability) / (1.0 - PROBABILITY)

        def beyond(end: float, sign: float) -> float:
            distances, residuals = self._proof_curve(sign)
            possible = torch.nonzero(residuals > delta)
            last = int(possible[-1]) + 1 if len(possible) else 0
            return end + sign * float(distances[last]) if last < GRID else sign * math.inf

        return beyond(float(values[0]), -1.0), beyond(float(values[-1]), 1.0)

    def spectrum(self, stopped: str) -> KrylovSpectrum:
        values, vectors = self._ritz
        k = min(self.num_eigenvalues, len(values))
        return found_pairs(
            self.ends(k),
            self.tol,
            bottom_vectors=normalised(self._v.combine(vectors[:, :k])),
            top_vectors=normalised(self._v.combine(vectors.flip(1)[:, :k])),
            stopped=stopped,
        )
