"""What every engine of Hessian-vector products offers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from samdiag.curvature.products.batch_loss import Piece, Products

Along = AbstractContextManager[Callable[[Piece], Products]]


class Engine(Protocol):
    """Hessian products of single pieces of data at the present point.

    Attributes:
        name: as `--products` says it.
        keeps: whether pieces may carry a kept graph for it.
    """

    name: str
    keeps: bool

    def along(self, vector: Tensor) -> Along:
        """A context whose value maps a piece to H_piece·vector; `vector` [num_params] is prepared once for all pieces.

        Inside, the parameters may be moved or carry tangents: nothing else may be evaluated there.
        """

    def block(self, piece: Piece, vectors: Tensor, into: Tensor) -> None:
        """Writes H_piece·v for every row v of `vectors` [k, num_params] to the rows of `into` [k, num_params]."""
