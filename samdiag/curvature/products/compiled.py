"""The whole product jvp(grad(f)) through torch.compile: fewer and larger kernels on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from samdiag.curvature.products.batch_loss import BatchLoss, Piece, Products
from samdiag.curvature.products.forward import load_rules
from samdiag.curvature.products.recomputed import one_by_one
from samdiag.errors import CannotDecide, SamdiagError
from samdiag.user_errors import is_out_of_memory


class _Whole(nn.Module):
    """The loss as a module's forward pass, so that its parameters can be arguments."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, data: Any) -> Any:
        return self.loss(self.model, data)


class _Differentiated:
    """The product of a model and a loss, compiled; it knows nothing of weights."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Any]) -> None:
        self.whole = _Whole(model, loss)
        self.compiled: Any = torch.compile(self._products, fullgraph=True, dynamic=False)

    def _products(self, named: dict[str, Tensor], shares: dict[str, Tensor], data: Any) -> dict[str, Tensor]:
        def loss(values: dict[str, Tensor]) -> Any:
            return torch.func.functional_call(self.whole, values, (data,))

        tangents: dict[str, Tensor] = torch.func.jvp(torch.func.grad(loss), (named,), (shares,))[1]
        return tangents


class Compiled:
    """Forward over reverse, compiled as one graph without breaks; compiling takes seconds to minutes per batch shape,
    once for all checkpoints of a model.

    Not the model alone: a compiled module has no second derivative.
    """

    name = "compiled"
    keeps = False

    def __init__(self, function: BatchLoss) -> None:
        self.function = function
        load_rules()
        model, loss = function.model, function.loss
        made = function.keep.once((self.name, id(model), id(loss)), lambda: _Differentiated(model, loss))
        self._whole, self._compiled = made.whole, made.compiled

    @contextmanager
    def along(self, vector: Tensor) -> Iterator[Callable[[Piece], Products]]:
        """See `Engine.along`."""
        # copies: dual numbers cannot be traced through views of the flat vector (an assertion inside torch 2.13 fails)
        named = {name: p.detach().clone() for name, p in self._whole.named_parameters() if p.requires_grad}
        shares = {name: s.clone() for name, s in zip(named, self.function.views(vector), strict=True)}
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer has no derivative to trace
        try:
            with torch.compiler.set_stance("default"):  # a measurement runs compiled parts of the model eagerly
                yield lambda piece: self._product(named, shares, piece)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)

    def block(self, piece: Piece, vectors: Tensor, into: Tensor) -> None:
        """See `Engine.block`."""
        one_by_one(self.function, self.along, piece, vectors, into)

    def _product(self, named: dict[str, Tensor], shares: dict[str, Tensor], piece: Piece) -> Products:
        try:
            with warnings.catch_warnings():  # the compiler's remarks are about its own parts
                warnings.simplefilter("ignore")
                found = self._compiled(named, shares, piece.data)
        except SamdiagError:
            raise
        except Exception as error:  # the compiler's own exceptions have no common base
            if is_out_of_memory(error):
                raise
            raise CannotDecide(
                f"the compiled product failed: {' '.join(str(error).split())[:200]}",
                "use --products auto, or install the C compiler that torch.compile needs",
            ) from error
        return [found[name] for name in named]
