"""Both ends of a symmetric operator's spectrum from products alone: thick-restart (block) Lanczos with full
reorthogonalisation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samdiag.curvature.complete import dense_eigenpairs
from samdiag.curvature.krylov_basis import KrylovBasis
from samdiag.curvature.lanczos_run import LanczosRun
from samdiag.curvature.ritz import Decided, KrylovSpectrum, Matvec, Progress, RitzEnds, worst_over_tolerance

DENSE_LIMIT = 256  # up to this dimension d products with unit vectors give the whole spectrum, multiplicities included
SOLVE_EVERY = 2  # steps between two solutions of the small problem: it costs the host, not the device
SOLVE_SHARE = 8  # … and steps over this, once the small problem has grown: its cost is cubic
EXTRA = 8  # basis vectors beyond 2k below which a restarted run would hardly move


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
    itself. A residual alone may belong to another eigenvalue than the last one: the run goes on until the certificate
    comes as near as CERTIFIED to both ends. Dimensions up to DENSE_LIMIT are solved completely.

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
        block_matvec: [p, dim] → [p, dim], for blocks and for small dimensions; one by one when it is not given.
        start: [s, dim] approximate eigenvectors of either end, from a neighbouring problem; a random part is mixed in.
        stop: asked before every step; a reason ends the run with what is known.

    Source: Wu & Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal.
    Appl. 22 (2000); Golub & Van Loan, Matrix Computations, ch. 10; stopping rule per end: the bottom lies next to the
    bulk at zero, the top alone.
    """
    if dim <= DENSE_LIMIT:
        return solve_completely(
            block_matvec or _row_by_row(matvec), dim, num_eigenvalues, device=device, dtype=dtype, progress=progress
        )
    most = min(max_products, dim)
    block = min(block, most)
    rows = min(most, max(capacity or most, fewest_vectors(num_eigenvalues, block)))
    run = LanczosRun(
        matvec=block_matvec if block > 1 and block_matvec else _row_by_row(matvec),
        basis=KrylovBasis(rows, dim, device=device, dtype=dtype),
        generator=generator,
        num_eigenvalues=num_eigenvalues,
        tol=tol,
    )
    run.begin(block, start)
    return run.spectrum(go_on(run, most, decided=decided, progress=progress, stop=stop))


def go_on(
    run: LanczosRun,
    max_products: int,
    *,
    decided: Decided | None = None,
    progress: Progress | None = None,
    stop: Callable[[], str | None] | None = None,
) -> str:
    """Steps and restarts until the run has converged or must end; returns why. See `extremal_eigenpairs`."""
    solved = 0
    while run.has_room(max_products):
        reason = stop() if stop and run.products else None
        if reason:
            return reason
        if run.full:
            run.restart()  # here, so that whatever ends the run finds the residual block in the basis
        run.step()
        last = run.full or not run.has_room(max_products)
        if not last and run.products - solved < max(SOLVE_EVERY, run.basis.size // SOLVE_SHARE):
            continue
        solved = run.products
        ends = run.ends()
        open_ends = worst_over_tolerance(ends, run.tol)
        if progress:
            progress(ends)
        if decided is not None and decided(ends):
            return "decided" if open_ends > 1.0 else "converged"
        exhausted = not run.invariant or run.breakdowns > run.num_eigenvalues
        if open_ends <= 1.0 and exhausted and run.is_certified():
            return "converged"
    return "products"


def _row_by_row(matvec: Matvec) -> Matvec:
    def block(rows: Tensor) -> Tensor:
        return matvec(rows[0])[None] if len(rows) == 1 else torch.stack([matvec(row) for row in rows])

    return block


def fewest_vectors(num_eigenvalues: int, block: int = 1) -> int:
    """The smallest basis with which a restarted run still converges: both ends' vectors and room to move."""
    return 2 * num_eigenvalues + EXTRA + 2 * block


def solve_completely(
    block_matvec: Matvec, dim: int, k: int, *, device: torch.device, dtype: torch.dtype, progress: Progress | None
) -> KrylovSpectrum:
    """Every eigenpair of an operator of small dimension."""

    def tell(count: int) -> None:
        if progress:
            progress(RitzEnds(bottom=[], bottom_residuals=[], top=[], top_residuals=[], steps=count))

    values, rows = dense_eigenpairs(block_matvec, dim, device=device, dtype=dtype, tell=tell)
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
