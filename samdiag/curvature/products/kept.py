"""Reverse over reverse on a kept graph: the gradient's graph is built once a point, one backward pass per product."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samdiag.curvature.products.batch_loss import BatchLoss, Graph, Piece, Products
from samdiag.curvature.products.recomputed import Recomputed, write_rows
from samdiag.curvature.products.timing import now

LAUNCH_BOUND = 0.02  # seconds: above it a product is work, which a block does not save (1.0–1.7 times slower on a CPU)
REPEATS = 4  # of a short measurement
TRIAL = 4  # vectors from which a block is judged: below it vmap's own cost shows
AT_ONCE = 64  # vectors in one backward pass: beyond it the cost per vector no longer falls
AGREEMENT = 1e-3  # relative difference of a block and single products: rounding is below it, a wrong rule above


class Kept(Recomputed):
    """Products on kept graphs: 1.0–2.7 gradients each; a piece without a kept graph is recomputed."""

    name = "kept"
    keeps = True

    def __init__(self, function: BatchLoss) -> None:
        super().__init__(function)
        self._batched: bool | None = None  # whether several vectors in one backward pass pay; None: not tried yet

    def _product(self, piece: Piece, shares: list[Tensor]) -> Products:
        if piece.graph is None:
            return super()._product(piece, shares)
        return self.backward(piece.graph, shares, keep=True)

    def block(self, piece: Piece, vectors: Tensor, into: Tensor) -> None:
        """See `Engine.block`; several vectors share a backward pass where the passes are bound by their overhead."""
        graph = piece.graph or self.function.graph(piece.data)
        if self._batched is None and len(vectors) >= TRIAL:
            self._batched = self._pays(graph, vectors[:TRIAL])
        if not self._batched or len(vectors) < TRIAL:
            rows = zip(vectors, into, strict=True)
            write_rows(
                self.function, ((self.backward(graph, self.function.views(v), keep=True), out) for v, out in rows)
            )
            return
        for v, out in zip(torch.split(vectors, AT_ONCE), torch.split(into, AT_ONCE), strict=True):
            products = self.backward(graph, self.function.views(v), keep=True, batched=True)
            write_rows(self.function, [(products, out)])

    def _pays(self, graph: Graph, vectors: Tensor) -> bool:
        """Whether one pass for all `vectors` is right and faster than one pass each."""
        if not graph[0]:
            return False
        single, together = torch.empty_like(vectors), torch.empty_like(vectors)

        def one(row: int) -> None:
            share = self.function.views(vectors[row])
            write_rows(self.function, [(self.backward(graph, share, keep=True), single[row])])

        def all_at_once() -> None:
            products = self.backward(graph, self.function.views(vectors), keep=True, batched=True)
            write_rows(self.function, [(products, together)])

        spent = 0.0
        for row in range(len(vectors)):
            seconds = _best(lambda row=row: one(row), vectors.device)  # type: ignore[misc]
            if seconds > LAUNCH_BOUND:
                return False
            spent += seconds
        try:
            block = _best(all_at_once, vectors.device)  # the first pass also builds vmap's tables
        except Exception:  # an operation without a batching rule, in whatever words it says so
            return False
        miss = float(torch.linalg.vector_norm(together - single))
        return block < spent and miss <= AGREEMENT * float(torch.linalg.vector_norm(single))


def _best(work: Callable[[], None], device: torch.device) -> float:
    """The fewest seconds of REPEATS runs; of one that is clearly work it is not repeated.

    Two runs must choose alike, or their numbers differ in the last bits: what else uses the machine must not decide.
    """
    best = float("inf")
    for _ in range(REPEATS):
        start = now(device)
        work()
        best = min(best, now(device) - start)
        if best > 5 * LAUNCH_BOUND:  # no preempted short one
            break
    return best
