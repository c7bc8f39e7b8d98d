"""Central differences of the gradient: needs first derivatives only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from samdiag.curvature.products.batch_loss import BatchLoss, Piece, Products, dense
from samdiag.curvature.products.recomputed import one_by_one

STEPS = {  # length of a step in parameter space: (3·eps)^(1/3) up to the network's own scale
    torch.float32: 1e-2,  # 4e-5 error on smooth networks; useless on ReLU convolution nets
    torch.float64: 1e-5,
}


class Difference:
    """(∇f(x + h·v) − ∇f(x − h·v)) / 2h with h = step/‖v‖; two gradients a product.

    The parameters are moved inside and put back exactly; the error depends on the loss, so that this engine is used
    only where it agrees with another one.
    """

    name = "difference"
    keeps = False

    def __init__(self, function: BatchLoss, step: float | None = None) -> None:
        self.function = function
        self.step = STEPS[function.flat.dtype] if step is None else step

    @contextmanager
    def along(self, vector: Tensor) -> Iterator[Callable[[Piece], Products]]:
        """See `Engine.along`; no host synchronisation: the step's length stays on the device."""
        flat = self.function.flat
        norm = torch.linalg.vector_norm(vector).clamp_min(torch.finfo(flat.dtype).tiny)
        here, move = flat.clone(), vector * (self.step / norm)
        try:
            yield lambda piece: self._product(piece, here, move, norm / (2 * self.step))
        finally:
            flat.copy_(here)

    def block(self, piece: Piece, vectors: Tensor, into: Tensor) -> None:
        """See `Engine.block`."""
        one_by_one(self.function, self.along, piece, vectors, into)

    def _product(self, piece: Piece, here: Tensor, move: Tensor, scale: Tensor) -> Products:
        ends = []
        for moved in (here + move, here - move):
            self.function.flat.copy_(moved)
            ends.append(self.function.gradient(piece.data)[1])
        return [None if a is None or b is None else (dense(a) - dense(b)) * scale for a, b in zip(*ends, strict=True)]
