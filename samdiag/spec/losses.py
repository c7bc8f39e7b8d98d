"""Losses that a name stands for: `loss(model, batch)` → mean over the batch's samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from samdiag.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLoss:
    """A loss with what is known about it.

    Attributes:
        function: `loss(model, batch)` → 0-dim tensor.
        lower_bound: what it can never go below; None: unknown.
        takes_pairs: whether a batch must be `(inputs, targets)`.
    """

    function: Callable[[Any, Any], Tensor]
    lower_bound: float | None
    takes_pairs: bool = True


def cross_entropy(model: Any, batch: Any) -> Tensor:
    """Mean cross-entropy of `model(inputs)` [n, classes, …] against class numbers or probabilities."""
    inputs, targets = batch
    return functional.cross_entropy(_output(model, inputs), targets)


def mse(model: Any, batch: Any) -> Tensor:
    """Mean squared error of `model(inputs)` against targets of the same shape."""
    inputs, targets = batch
    outputs = _output(model, inputs)
    _check_shapes("mse", outputs, targets)
    return functional.mse_loss(outputs, targets.to(outputs.dtype))


def bce_with_logits(model: Any, batch: Any) -> Tensor:
    """Mean binary cross-entropy of the logits `model(inputs)` against targets in [0, 1] of the same shape."""
    inputs, targets = batch
    outputs = _output(model, inputs)
    _check_shapes("bce_with_logits", outputs, targets)
    return functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))


def of_model(model: Any, batch: Any) -> Tensor:
    """The loss that the model itself returns, as Hugging Face models do: a 0-dim tensor, `.loss` or `["loss"]`."""
    if isinstance(batch, Mapping):
        output = model(**batch)
    else:
        output = model(*batch) if isinstance(batch, Sequence) else model(batch)
    found = output if isinstance(output, Tensor) else getattr(output, "loss", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("loss")
    if not isinstance(found, Tensor) or found.numel() != 1:
        todo = "return a 0-dim tensor, .loss or ['loss'] from the model, or name a loss"
        raise UsageError("loss = model, but the model returns no loss", todo)
    return found.reshape(())


def _output(model: Any, inputs: Any) -> Tensor:
    """The model's output tensor; `.logits` where it returns an object that has them."""
    output = model(inputs)
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        what = f"the model returns a {type(output).__name__}, and a named loss takes a tensor"
        raise UsageError(what, "name a function of your own: loss = 'module:function', taking (model, batch)")
    return found


def _check_shapes(name: str, outputs: Tensor, targets: Tensor) -> None:
    """Nothing, or UsageError where broadcasting would silently compare each output with every target."""
    if outputs.shape != targets.shape:
        what = f"loss = {name} compares outputs of shape {tuple(outputs.shape)} with targets of {tuple(targets.shape)}"
        raise UsageError(what, "give both the same shape in the model or the data")


CROSS_ENTROPY = NamedLoss(function=cross_entropy, lower_bound=0.0)
MSE = NamedLoss(function=mse, lower_bound=0.0)
BCE_WITH_LOGITS = NamedLoss(function=bce_with_logits, lower_bound=0.0)
MODEL = NamedLoss(function=of_model, lower_bound=None, takes_pairs=False)
