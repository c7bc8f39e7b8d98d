"""Which eigenvalue solver runs on the objective, and with how much memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.finite import require_finite
from samdiag.curvature.heaviest import heaviest_samples
from samdiag.curvature.lanczos import DENSE_LIMIT, extremal_eigenpairs, fewest_vectors
from samdiag.curvature.memory import affordable_vectors
from samdiag.curvature.objective import Objective
from samdiag.curvature.ritz import Decided, KrylovSpectrum, Matvec, Progress
from samdiag.curvature.two_level import find_lead, led_eigenpairs
from samdiag.errors import CannotDecide
from samdiag.instruments import SolverRun
from samdiag.measure.warm_start import WarmStart

SEED_STRIDE = 7919  # between the seeds of runs that start from each other's vectors: their random parts must be new
LEAD_TOLERANCE = 0.01  # residual of the lead's own ends: finer ones describe the lead better than they lead
WORK_VECTORS = 14  # beside the basis: the product and its vectors, and a verification's five in float64
LEAST_CAPACITY = 160  # basis vectors below which a lead's basis and a subspace do not fit side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is asked of the solver.

    Attributes:
        num_eigenvalues: k per end.
        tol: relative residual asked of the first of either end.
        max_products: bound on the products of the run.
        seed: of the start vector.
        decided: see `measure.stopping`.
        proof_at: see `two_level.led_eigenpairs`.
        progress: called with the present ends.
        stop: asked before every product; a reason ends the run.
        start: approximate eigenvectors.
        block: vectors per step.
        solver: "auto", "lanczos" or "two-level".
        rough: bounds decide, not the values: a random start gives them soonest.
    """

    num_eigenvalues: int
    tol: float
    max_products: int
    seed: int
    decided: Decided | None = None
    proof_at: Callable[[float], float] | None = None
    progress: Progress | None = None
    stop: Callable[[], str | None] | None = None
    start: WarmStart | None = None
    block: int = 1
    solver: str = "auto"
    rough: bool = False


def solve(objective: Objective, search: Search) -> tuple[KrylovSpectrum, SolverRun]:
    """The extremal Ritz pairs at the objective's present point, and how they were come by."""
    capacity = _capacity(objective, search)
    lead = ""
    cheap = search.solver == "auto" and objective.united  # finding a lead costs more than the products it saves
    if search.solver != "lanczos" and not search.rough and objective.num_params > DENSE_LIMIT and not cheap:
        found = _solve_led(objective, search, capacity)
        if not isinstance(found, str):
            return found
        lead = found
    krylov = extremal_eigenpairs(
        _finite(objective, objective.product),
        objective.num_params,
        num_eigenvalues=search.num_eigenvalues,
        tol=search.tol,
        max_products=search.max_products,
        generator=_generator(search),
        device=objective.device,
        dtype=objective.dtype,
        decided=search.decided,
        progress=search.progress,
        capacity=capacity,
        block=search.block,
        block_matvec=_finite(objective, objective.block),
        start=search.start.vectors if search.start else None,
        stop=search.stop,
    )
    run = SolverRun(
        stopped=krylov.stopped,
        steps=krylov.steps,
        restarts=krylov.restarts,
        basis_vectors=min(capacity, krylov.steps),
        block=search.block,
        warm_start=search.start.source if search.start else None,
        lead=lead,
    )
    return krylov, run


def _finite(objective: Objective, product: Matvec) -> Matvec:
    """The product, refused where it is not a number: which parameter's is said."""

    def checked(vectors: Tensor) -> Tensor:
        result = product(vectors)
        if not bool(torch.isfinite(result.sum())):
            for row in result.reshape(-1, result.shape[-1]):
                require_finite(objective.model, objective.parameters, row)
        return result

    return checked


def most_eigenvalues(objective: Objective, wanted: int) -> int:
    """How many eigenvalues per end, at most `wanted` and at least one, there is memory for."""
    dim = objective.num_params
    affordable = affordable_vectors(objective.device, dim, objective.dtype, budget=objective.memory_for_basis)
    return max(1, min(wanted, (affordable - fewest_vectors(0) - WORK_VECTORS) // 4))


def _capacity(objective: Objective, search: Search) -> int:
    """Basis vectors within the memory that the kept graphs leave, with room for the reported ones and the work vectors.

    Raises:
        CannotDecide: there is not enough for both ends.
    """
    dim = objective.num_params
    affordable = affordable_vectors(objective.device, dim, objective.dtype, budget=objective.memory_for_basis)
    beside = 2 * search.num_eigenvalues + WORK_VECTORS * search.block
    fewest = fewest_vectors(search.num_eigenvalues, search.block)
    if dim > DENSE_LIMIT and affordable < fewest + beside:
        size = dim * objective.dtype.itemsize
        raise CannotDecide(
            f"memory for {affordable} vectors of {dim} parameters is left; the spectrum needs {fewest + beside}",
            f"free {-(-(fewest + beside - affordable) * size // 2**20)} MiB more (--memory where you set it), "
            "or ask for fewer eigenvalues with --num-eigenvalues",
        )
    return max(affordable - beside, fewest)


def _generator(search: Search) -> torch.Generator:
    generation = search.start.generation if search.start else 0
    return torch.Generator().manual_seed(search.seed + SEED_STRIDE * generation)


def _solve_led(objective: Objective, search: Search, capacity: int) -> tuple[KrylovSpectrum, SolverRun] | str:
    """The two-level solution, or why there is none."""
    if search.start is not None or search.block > 1:
        return "none: start vectors and blocks are Lanczos's"
    if capacity < LEAST_CAPACITY:
        return f"none: memory for {capacity} vectors, {LEAST_CAPACITY} are needed"
    pieces = heaviest_samples(objective)
    if pieces is None:
        return "none: no few samples carry the loss"
    samples = sum(count for _, count in pieces)
    with objective.on(pieces) as part:
        share = samples / objective.num_samples  # the part's mean, as its share of the mean over all

        product = _finite(part, part.product)

        def cheap(vector: Tensor) -> Tensor:
            return product(vector) * share

        lead = find_lead(
            cheap,
            objective.num_params,
            tol=LEAD_TOLERANCE,
            max_products=search.max_products,
            capacity=capacity // 2,
            generator=_generator(search),
            device=objective.device,
            dtype=objective.dtype,
            stop=search.stop,
        )
    if lead is None:
        return f"given up: {samples} samples that carry most of the loss have no ends within the products allowed"
    before = objective.num_products
    krylov = led_eigenpairs(
        _finite(objective, objective.product),
        lead,
        num_eigenvalues=search.num_eigenvalues,
        tol=search.tol,
        max_products=search.max_products,
        capacity=capacity // 2,
        decided=search.decided,
        proof_at=search.proof_at,
        progress=search.progress,
        stop=search.stop,
    )
    if krylov is None:
        spent = round(objective.num_products - before + lead.products * share)
        return f"given up: {samples} samples that carry most of the loss did not lead to both ends in {spent} products"
    run = SolverRun(
        stopped=krylov.stopped,
        steps=krylov.steps,
        basis_vectors=2 * krylov.steps + lead.products,
        lead_samples=samples,
        lead_products=lead.products,
        lead="followed",
    )
    return krylov, run
