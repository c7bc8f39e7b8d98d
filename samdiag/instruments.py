"""What the numbers were made with: the self-check, the eigenvalue solver, the product engine, the second opinion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """Whether the Hessian products can be believed: symmetry, repeatability, agreement with float64 central
    differences.
    """

    passed: bool
    symmetry_error: float
    repeat_error: float
    finite_difference_error: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverRun:
    """How the eigenvalue solver came to its answer.

    Attributes:
        stopped: "converged", "decided", "products" (their number ran out), "time limit" or "interrupted".
        steps: Hessian products of the run, without those that verified its answer.
        restarts: how often the basis was compressed to stay within memory.
        basis_vectors: the most that were held at once.
        block: vectors per step.
        warm_start: where the start vectors came from; None: random.
        lambda_max_bound: lambda_max is below it with the probability of the bound on lambda_min.
        lead_samples, lead_products: samples that carry most of the loss, and products over them, that led to both ends;
            0: none did.
        lead: "followed"; "given up: …" or "none: …" with the reason; "" where none was looked for.
    """

    stopped: str
    steps: int
    restarts: int = 0
    basis_vectors: int = 0
    block: int = 1
    warm_start: str | None = None
    lambda_max_bound: float | None = None
    lead_samples: int = 0
    lead_products: int = 0
    lead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOpinion:
    """What PyHessian says about the same batches, and whether it agrees (it is never the engine)."""

    lambda_max: float | None
    lambda_max_agrees: bool | None
    trace: float | None
    trace_error: float | None
    trace_samdiag: float | None
    trace_agrees: bool | None
    message: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedEngine:
    """What one way of computing Hessian products took on a piece of the data.

    Attributes:
        name: as `--products` says it.
        seconds: of one full-data product; None: it was not run.
        gradients: its cost in gradients.
        error: relative distance from a recomputed product.
        refused: why it was not to be chosen; "" where it was.
    """

    name: str
    seconds: float | None = None
    gradients: float | None = None
    error: float | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductEngine:
    """How the Hessian products were computed.

    Attributes:
        name: kept, recomputed, forward, compiled or difference.
        seconds, gradients: what one full-data product took when tried, and that in gradients; None: not timed.
        kept_share: share of the samples whose gradient graph is kept; the rest is recomputed.
        joined: samples of a joined batch; None: the batches as they are.
        tried: every candidate; none where products take next to no time.
    """

    name: str
    seconds: float | None = None
    gradients: float | None = None
    kept_share: float = 0.0
    joined: int | None = None
    tried: tuple[TriedEngine, ...] = ()
