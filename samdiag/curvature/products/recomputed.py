"""Reverse over reverse: the gradient's graph is built for every product and thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from samdiag.curvature.products.batch_loss import BatchLoss, Graph, Piece, Products, dense, differentiating

_engine: Any = getattr(torch.autograd.graph, "_engine_run_backward", None)


class Recomputed:
    """The reference engine: always there where the loss is twice differentiable; 2–4 gradients a product.

    Source: Pearlmutter, Fast exact multiplication by the Hessian (1994), by two passes of reverse mode.
    """

    name = "recomputed"
    keeps = False

    def __init__(self, function: BatchLoss) -> None:
        self.function = function

    @contextmanager
    def along(self, vector: Tensor) -> Iterator[Callable[[Piece], Products]]:
        """See `Engine.along`."""
        shares = self.function.views(vector)
        yield lambda piece: self._product(piece, shares)

    def block(self, piece: Piece, vectors: Tensor, into: Tensor) -> None:
        """See `Engine.block`; the graph is built once for all vectors."""
        graph = piece.graph or self.function.graph(piece.data)
        rows = zip(vectors, into, strict=True)
        write_rows(self.function, ((self.backward(graph, self.function.views(v), keep=True), out) for v, out in rows))

    def backward(self, graph: Graph, shares: list[Tensor], *, keep: bool, batched: bool = False) -> Products:
        """The derivative of <gradient, vector>: one backward pass; `batched`: shares [k, *shape] in one pass."""
        grads, used = graph
        if not grads:  # the loss is linear in the parameters
            return [None] * len(self.function.parameters)
        with differentiating("the second derivative"):
            vectors = [shares[i] for i in used]
            if batched:
                return torch.autograd.grad(
                    grads,
                    self.function.parameters,
                    grad_outputs=vectors,
                    retain_graph=keep,
                    allow_unused=True,
                    is_grads_batched=True,
                )
            return vector_jacobian(grads, self.function.parameters, vectors, keep=keep)

    def _product(self, piece: Piece, shares: list[Tensor]) -> Products:
        return self.backward(self.function.graph(piece.data), shares, keep=False)


def vector_jacobian(
    outputs: list[Tensor], inputs: Sequence[Tensor], vectors: list[Tensor], *, keep: bool
) -> tuple[Tensor | None, ...]:
    """What torch.autograd.grad(outputs, inputs, vectors, retain_graph=keep, allow_unused=True) returns.

    The engine is asked directly where this torch lets one: the public function first loads symbolic shapes and with
    them SymPy (half a second to one second a process), and compares every pair of shapes in Python each time.
    """
    if _engine is not None:
        return tuple(_engine(tuple(outputs), tuple(vectors), keep, False, tuple(inputs), True, accumulate_grad=False))
    return torch.autograd.grad(outputs, inputs, grad_outputs=vectors, retain_graph=keep, allow_unused=True)


def write_rows(function: BatchLoss, rows: Iterator[tuple[Products, Tensor]] | list[tuple[Products, Tensor]]) -> None:
    """Copies each product to its flat row [num_params] (or block [k, num_params])."""
    for products, out in rows:
        for view, product in zip(function.views(out), products, strict=True):
            if product is None:
                view.zero_()
            else:
                view.copy_(dense(product))


def one_by_one(
    function: BatchLoss, along: Callable[[Tensor], object], piece: Piece, vectors: Tensor, into: Tensor
) -> None:
    """A block as single products, for engines that have nothing to share between vectors."""
    for v, out in zip(vectors, into, strict=True):
        with along(v) as product:  # type: ignore[attr-defined]
            write_rows(function, [(product(piece), out)])
