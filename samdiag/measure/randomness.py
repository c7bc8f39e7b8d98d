"""Which random functions a loss calls: the likely cause where two evaluations differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

DROPOUT = {
    F.dropout,
    F.alpha_dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.feature_alpha_dropout,
}
NOISE = {
    torch.rand,
    torch.randn,
    torch.randint,
    torch.randperm,
    torch.rand_like,
    torch.randn_like,
    torch.randint_like,
    torch.normal,
    torch.bernoulli,
    torch.multinomial,
    torch.poisson,
    Tensor.bernoulli,
    Tensor.bernoulli_,
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.exponential_,
    F.gumbel_softmax,
}


class RandomCalls(TorchFunctionMode):
    """Collects the names of the random functions that are called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUT and _on(args, kwargs, default=func is F.dropout):
            self.names[f"{func.__name__} with training=True"] = None
        elif func is torch.dropout and _on(args, kwargs, default=False):
            self.names["torch.dropout with train=True"] = None
        elif func in NOISE:
            self.names[func.__name__] = None
        elif func is F.scaled_dot_product_attention and (kwargs.get("dropout_p") or (len(args) > 4 and args[4])):
            self.names["scaled_dot_product_attention with dropout_p > 0"] = None
        return func(*args, **kwargs)


def _on(args: Any, kwargs: Any, *, default: bool) -> bool:
    """Whether a dropout function was called to drop: p > 0 and its third argument true."""
    p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    training = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", default))
    return bool(training) and p > 0


def random_calls(loss: Any, model: Any, batch: Any) -> list[str]:
    """Names of the random functions that one evaluation of the loss calls; empty where none is seen."""
    with torch.no_grad(), RandomCalls() as mode:
        loss(model, batch)
    return list(mode.names)
