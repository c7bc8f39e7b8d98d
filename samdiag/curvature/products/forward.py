"""Forward over reverse: the gradient is evaluated on dual numbers, its tangent is the product."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from samdiag.curvature.products.batch_loss import BatchLoss, Piece, Products, differentiating
from samdiag.curvature.products.recomputed import one_by_one


class Forward:
    """The directional derivative of the gradient by forward-mode AD; keeps no graph and builds none of higher order.

    The parameters themselves become dual numbers, in place and without a change of value, so that the loss need not be
    a pure function of them: recurrent layers' weight lists, tied weights and closures see the tangents too.

    Source: Pearlmutter's R-operator applied to the gradient, jvp(grad f). Never the other way round: the gradient of a
    directional derivative is 20–30 % wrong with normalisation layers.
    """

    name = "forward"
    keeps = False

    def __init__(self, function: BatchLoss) -> None:
        self.function = function
        load_rules()

    @contextmanager
    def along(self, vector: Tensor) -> Iterator[Callable[[Piece], Products]]:
        """See `Engine.along`."""
        parameters = self.function.parameters
        with forward_ad.dual_level():
            # the values stay the same: the version counters must too, or graphs that others keep count as spoilt
            with torch.no_grad(), _unsafe_preserve_version_counter(tuple(parameters)):
                for p, share in zip(parameters, self.function.views(vector), strict=True):
                    p.copy_(_dual(p.detach(), share))
            yield self._product

    def block(self, piece: Piece, vectors: Tensor, into: Tensor) -> None:
        """See `Engine.block`."""
        one_by_one(self.function, self.along, piece, vectors, into)

    def _product(self, piece: Piece) -> Products:
        with differentiating("the forward derivative of the gradient"):
            _, grads = self.function.gradient(piece.data)
            return [None if g is None else _tangent(g) for g in grads]


def load_rules() -> None:
    """Loads torch's forward-mode rules for the backward of normalisation layers, for about 2 s, once.

    Torch would load them itself, with a warning that its own way of compiling them is deprecated.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch._decomp.decompositions_for_jvp  # noqa: F401


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    made: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return made


def _tangent(dual: Tensor) -> Tensor | None:
    found: Tensor | None = forward_ad.unpack_dual(dual).tangent  # type: ignore[no-untyped-call]
    return found
