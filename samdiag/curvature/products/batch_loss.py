"""The mean loss of one batch as a function of the parameters: its value, its gradient, its gradient's graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from samdiag.errors import CannotDecide, UsageError
from samdiag.keeping import Keep
from samdiag.user_errors import is_out_of_memory

Graph = tuple[list[Tensor], list[int]]  # gradient tensors with their graph, and which parameters they belong to
Products = Sequence[Tensor | None]  # one per parameter, shaped like it; None where there is no curvature


@dataclass(slots=True)
class Piece:
    """Samples that are evaluated together: a batch, or several joined.

    Attributes:
        data, count: what the loss takes, and its number of samples.
        half: 0 or 1: which of two halves of the data it belongs to, inherited when it is split.
        graph: its gradient's graph at the present point, where it is kept.
    """

    data: Any
    count: int
    half: int = 0
    graph: Graph | None = None


class BatchLoss:
    """`loss(model, data)` with its refusals in one line each.

    Attributes:
        parameters: the trainable ones, each a view of `flat` [num_params], in the same order.
        used: positions of parameters that some batch's loss depends on.
        keep: where compiled products stay for the next checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Any],
        parameters: list[nn.Parameter],
        flat: Tensor,
        keep: Keep | None = None,
    ) -> None:
        self.keep = keep or Keep()
        self.model, self.loss, self.parameters, self.flat = model, loss, parameters, flat
        self.used: set[int] = set()
        self._sizes = [p.numel() for p in parameters]
        self._shapes = [p.shape for p in parameters]

    def value(self, data: Any) -> Tensor:
        """The mean loss, a real tensor [].

        Raises:
            UsageError: it is no tensor, no scalar, or complex.
        """
        value = self.loss(self.model, data)
        if not isinstance(value, Tensor):
            raise UsageError(
                f"the loss returned {type(value).__name__}, not a tensor",
                "return the mean loss of the batch as a 0-dim tensor that depends on the model's parameters",
            )
        if value.numel() != 1:
            raise UsageError(
                f"the loss is not a scalar: it has shape {tuple(value.shape)}",
                "return the mean over the batch, e.g. loss.mean()",
            )
        if value.is_complex():
            raise UsageError("the loss is complex", "return a real scalar")
        return value.reshape(())

    def gradient(self, data: Any) -> tuple[Tensor, Products]:
        """The loss [] and its gradient, one tensor per parameter (None where the loss does not depend on it)."""
        value = self._differentiable(data)
        with differentiating("the gradient"):
            grads = torch.autograd.grad(value, self.parameters, allow_unused=True)
        self.used.update(i for i, g in enumerate(grads) if g is not None)
        if all(g is None for g in grads):
            raise UsageError(
                "the loss does not depend on the model's trainable parameters",
                "compute it from the model that is passed to loss(model, batch)",
            )
        return value.detach(), grads

    def graph(self, data: Any) -> Graph:
        """The gradient with its graph, for the parameters on which it depends."""
        value = self._differentiable(data)
        with differentiating("the gradient's graph"):
            grads = torch.autograd.grad(value, self.parameters, create_graph=True, allow_unused=True)
        used = [i for i, g in enumerate(grads) if g is not None and g.requires_grad]
        return [g for g in grads if g is not None and g.requires_grad], used

    def views(self, flat: Tensor) -> list[Tensor]:
        """`flat` [..., num_params] as one tensor [..., *shape] per parameter, without copying."""
        parts = torch.split(flat, self._sizes, dim=-1)
        lead = flat.shape[:-1]
        return [part.view(*lead, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _differentiable(self, data: Any) -> Tensor:
        with torch.enable_grad():
            value = self.value(data)
        if not value.requires_grad:
            raise UsageError(
                "the loss does not depend on the model's parameters",
                "compute it from the model that is passed to loss(model, batch), without torch.no_grad() or detach()",
            )
        return value


def accumulate(into: list[Tensor], products: Products, weight: float) -> None:
    """Adds weight × product to every tensor of `into` in place; one pass over memory."""
    pairs = [(t, dense(p)) for t, p in zip(into, products, strict=True) if p is not None]
    if pairs:
        torch._foreach_add_([t for t, _ in pairs], [p for _, p in pairs], alpha=weight)


def dense(tensor: Tensor) -> Tensor:
    """The tensor without its graph, as an ordinary strided one."""
    return tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()


@contextmanager
def differentiating(what: str) -> Iterator[None]:
    """Autograd's refusals in one line; memory that runs out passes, so that the batch is halved."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:300]
        raise CannotDecide(
            f"{what} of the loss cannot be computed: {text}",
            "the Hessian needs a loss that is twice differentiable: eager attention, no compiled or fused layers",
        ) from error
