"""The model's output inside an opaque loss: caught on its way, so that the loss is split into output and rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from samdiag.errors import CannotDecide

TODO = "leave this matrix out (--matrix hessian), or write the loss as loss_of(model(inputs), targets)"
Shares = list[Tensor | None]


@dataclass(slots=True)
class Split:
    """One batch's loss as ℓ(z(θ), θ).

    Attributes:
        output: z with its graph to the parameters.
        leaf: the same numbers, cut loose: what the loss was computed from.
        loss: ℓ, its graph ending at `leaf` (and at parameters that it sees directly, such as weight decay).
        count: samples.
    """

    output: Tensor
    leaf: Tensor
    loss: Tensor
    count: int
    pulled: tuple[Tensor, Shares] | None = None  # a dummy u and Jᵀu with its graph
    slopes: tuple[Tensor, Shares] | None = None  # ∂ℓ/∂z and ∂ℓ/∂θ at fixed z, with their graphs

    def push(self, parameters: list[nn.Parameter], tangent: list[Tensor]) -> Tensor:
        """J v [shape of z] for `tangent` v in the shapes of the parameters, by differentiating Jᵀu along u.

        Source: Townsend, A new trick for calculating Jacobian vector products (2017).
        """
        if self.pulled is None:
            u = torch.zeros_like(self.output, requires_grad=True)
            with torch.enable_grad():
                rows = torch.autograd.grad(
                    self.output, parameters, grad_outputs=u, create_graph=True, retain_graph=True, allow_unused=True
                )
            self.pulled = (u, list(rows))
        u, found = self.pulled
        live = [(row, v) for row, v in zip(found, tangent, strict=True) if row is not None and row.requires_grad]
        if not live:
            return torch.zeros_like(self.output)
        (pushed,) = torch.autograd.grad(
            [row for row, _ in live], u, grad_outputs=[v for _, v in live], retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(self.output) if pushed is None else pushed.detach()

    def own_slopes(self, parameters: list[nn.Parameter]) -> tuple[Tensor, Shares]:
        """∂ℓ/∂z [shape of z], and ∂ℓ/∂θ at fixed z: None where the loss sees a parameter through z only."""
        if self.slopes is None:
            with torch.enable_grad():
                slope, *own = torch.autograd.grad(
                    self.loss, [self.leaf, *parameters], create_graph=True, allow_unused=True
                )
            self.slopes = (slope, list(own))
        return self.slopes

    def pull(self, parameters: list[nn.Parameter], cotangent: Tensor) -> Shares:
        """Jᵀ w in the shapes of the parameters; None for those that z does not depend on."""
        return list(
            torch.autograd.grad(self.output, parameters, grad_outputs=cotangent, retain_graph=True, allow_unused=True)
        )


def split_loss(model: nn.Module, loss: Callable[[Any, Any], Any], batch: Any, count: int, *, matrix: str) -> Split:
    """The loss of one batch, split at the output of the model.

    Raises:
        CannotDecide: the loss calls the model never or more than once, the model returns no tensor (nor `.logits`), or
            the loss does not depend on it.
    """
    caught: list[tuple[Tensor, Tensor]] = []
    calls = 0

    def catch(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        z = _tensor_of(output)
        if z is None or calls > 1:
            return None
        leaf = z.detach().clone().requires_grad_()
        caught.append((z, leaf))
        return _with_tensor(output, leaf)

    handle = model.register_forward_hook(catch)
    try:
        with torch.enable_grad():
            value = loss(model, batch)
    finally:
        handle.remove()
    if calls != 1:
        times = "never" if calls == 0 else f"{calls} times"
        raise CannotDecide(f"no {matrix}: the loss calls the model {times}, not once for a batch", TODO)
    if not caught:
        raise CannotDecide(f"no {matrix}: the model returns neither a tensor nor an object with .logits", TODO)
    z, leaf = caught[0]
    if not z.requires_grad:
        raise CannotDecide(f"no {matrix}: the model's output does not depend on its parameters", TODO)
    if not value.requires_grad or torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)[0] is None:
        raise CannotDecide(
            f"no {matrix}: the loss does not depend on the model's output, but is made inside the model", TODO
        )
    return Split(output=z, leaf=leaf, loss=value.reshape(()), count=count)


def _tensor_of(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) and found.is_floating_point() else None


def _with_tensor(output: Any, leaf: Tensor) -> Any:
    if isinstance(output, Tensor):
        return leaf
    replaced = copy(output)
    if isinstance(replaced, Mapping):
        replaced["logits"] = leaf  # type: ignore[index]
    else:
        replaced.logits = leaf
    return replaced
