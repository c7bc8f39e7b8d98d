"""Hessian products that are not numbers, named by parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from samdiag.errors import CannotDecide
from samdiag.quoting import listed


def require_finite(model: nn.Module, parameters: Sequence[Tensor], product: Tensor) -> None:
    """Refuses a Hessian product [num_params] that is not a number everywhere, naming the parameters.

    Args:
        model: whose parameters they are.
        parameters: in the order of the product's parts.
        product: Hv.

    Raises:
        CannotDecide: with the usual causes.
    """
    if bool(torch.isfinite(product).all()):
        return
    names = {id(p): name for name, p in model.named_parameters()}
    parts = torch.split(product, [p.numel() for p in parameters])
    holes = [
        names.get(id(p), "?") for p, part in zip(parameters, parts, strict=True) if not bool(torch.isfinite(part).all())
    ]
    raise CannotDecide(
        f"the second derivative is NaN or infinite for {listed(holes, 3)}",
        "look for a square root, a norm or a fractional power that is taken of exactly 0, and add a small constant",
    )
