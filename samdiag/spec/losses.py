"""Losses that a name stands for: `loss(model, batch)` → mean over the batch's samples.

A batch is (inputs, targets), or a table with `labels` whose other entries are the model's own arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from samdiag.errors import UsageError
from samdiag.spec.batches import LABELS

IGNORED = -100  # a target that is not predicted: torch's own default, and Hugging Face's
SMOOTHING = "label_smoothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLoss:
    """A loss with what is known about it.

    Attributes:
        function: `loss(model, batch)` → 0-dim tensor.
        lower_bound: what it can never go below, without arguments; None: unknown.
        takes_pairs: whether a batch must be `(inputs, targets)` or have labels.
        num_classes: `(model, batch)` → the classes that it is a cross-entropy over; None: it is none.
        targets: `batch` → class numbers, −100 where none is predicted; None: it is no cross-entropy.
        arguments: those it takes by keyword.
    """

    function: Callable[..., Tensor]
    lower_bound: float | None
    takes_pairs: bool = True
    num_classes: Callable[[Any, Any], int] | None = None
    targets: Callable[[Any], Any] | None = None
    arguments: tuple[str, ...] = ()


def cross_entropy(
    model: Any, batch: Any, *, label_smoothing: float = 0.0, targets_per_sample: float | None = None
) -> Tensor:
    """Mean cross-entropy of `model(inputs)` [n, classes, …] or [n, …, classes] against class numbers or probabilities.

    Args:
        label_smoothing: as torch's.
        targets_per_sample: the loss is the sum over targets, divided by n times this; None: by the targets that are
            there. See `spec.weighting`.
    """
    logits, targets = classes_and_targets(model, batch)
    scale = None if targets_per_sample is None else targets_per_sample * len(targets_of(batch))
    return _entropy(logits, targets, label_smoothing, scale)


def causal_lm(
    model: Any, batch: Any, *, label_smoothing: float = 0.0, targets_per_sample: float | None = None
) -> Tensor:
    """Mean cross-entropy of every token but a sequence's first, predicted from those before it; −100 is left out.

    Args: as for `cross_entropy`.
    """
    logits, following = tokens_and_next(model, batch)
    scale = None if targets_per_sample is None else targets_per_sample * len(following)
    return _entropy(logits.flatten(0, -2), following.flatten(), label_smoothing, scale)


def mse(model: Any, batch: Any) -> Tensor:
    """Mean squared error of `model(inputs)` against targets of the same shape."""
    outputs, targets = output_and_targets(model, batch)
    _check_shapes("mse", outputs, targets)
    return functional.mse_loss(outputs, targets.to(outputs.dtype))


def bce_with_logits(model: Any, batch: Any) -> Tensor:
    """Mean binary cross-entropy of the logits `model(inputs)` against targets in [0, 1] of the same shape."""
    outputs, targets = output_and_targets(model, batch)
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
    return found.reshape(()) if found.dim() else found  # as it is, its graph says whether it can be negative


def output_and_targets(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """What the model makes of a batch's inputs, and the batch's targets."""
    if isinstance(batch, Mapping):
        output = model(**{name: value for name, value in batch.items() if name != LABELS})
        targets = batch[LABELS]
    else:
        inputs, targets = batch
        output = model(inputs)
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        what = f"the model returns a {type(output).__name__}, and a named loss takes a tensor"
        raise UsageError(what, "name a function of your own: loss = 'module:function', taking (model, batch)")
    return found, targets


def classes_and_targets(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Logits with the classes second, as torch wants them, and targets.

    Where the classes come last (sequences), leading dimensions are put together: logits [n·…, classes], targets [n·…].
    """
    logits, targets = output_and_targets(model, batch)
    if logits.dim() > 2 and not targets.is_floating_point() and targets.shape == logits.shape[:-1]:
        second = (logits.shape[0], *logits.shape[2:])
        if tuple(targets.shape) != second:  # else the classes may well be second, torch's own order
            return logits.flatten(0, -2), targets.flatten()
    return logits, targets


def tokens_and_next(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Logits [n, t, vocabulary] and for each the token that follows, −100 where none does."""
    if isinstance(batch, Mapping):
        output = model(**{name: value for name, value in batch.items() if name != LABELS})
    else:
        output = model(batch if isinstance(batch, Tensor) else batch[0])
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    following = next_tokens(batch)
    if not isinstance(logits, Tensor) or logits.shape[:-1] != following.shape:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        what = f"loss = causal_lm takes logits [samples, tokens, vocabulary] for {tuple(following.shape)} tokens"
        raise UsageError(f"{what}, and the model returns {found}", "name a language model, or another loss")
    return logits, following


def next_tokens(batch: Any) -> Tensor:
    """For each token [n, t] the one that follows it, −100 where none does or the labels leave it out."""
    if isinstance(batch, Mapping):
        labels = batch.get(LABELS)
        if labels is None:
            labels = batch.get("input_ids")
            mask = batch.get("attention_mask")
            if isinstance(labels, Tensor) and isinstance(mask, Tensor):
                labels = labels.masked_fill(mask == 0, IGNORED)
    else:
        labels = batch if isinstance(batch, Tensor) else batch[-1]
    if not isinstance(labels, Tensor) or labels.dim() != 2 or labels.is_floating_point():
        what = "loss = causal_lm takes batches of tokens [samples, tokens]: input_ids, and labels where they differ"
        raise UsageError(what, 'see tensors and datasets in docs/catalogs.md: data = { tensors = "tokens.npz" }')
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def targets_of(batch: Any) -> Any:
    """A batch's targets."""
    return batch[LABELS] if isinstance(batch, Mapping) else batch[1]


def _entropy(logits: Tensor, targets: Tensor, smoothing: float, scale: float | None) -> Tensor:
    """The mean over the targets that are there, or their sum over `scale`."""
    reduction = "mean" if scale is None else "sum"
    found = functional.cross_entropy(
        logits, targets, ignore_index=IGNORED, label_smoothing=smoothing, reduction=reduction
    )
    return found if scale is None else found / scale


def _check_shapes(name: str, outputs: Tensor, targets: Tensor) -> None:
    """Nothing, or UsageError where broadcasting would silently compare each output with every target."""
    if outputs.shape != targets.shape:
        what = f"loss = {name} compares outputs of shape {tuple(outputs.shape)} with targets of {tuple(targets.shape)}"
        raise UsageError(what, "give both the same shape in the model or the data")


CROSS_ENTROPY = NamedLoss(
    function=cross_entropy,
    lower_bound=0.0,
    num_classes=lambda model, batch: classes_and_targets(model, batch)[0].shape[1],
    targets=targets_of,
    arguments=(SMOOTHING,),
)
CAUSAL_LM = NamedLoss(
    function=causal_lm,
    lower_bound=0.0,
    takes_pairs=False,
    num_classes=lambda model, batch: tokens_and_next(model, batch)[0].shape[-1],
    targets=next_tokens,
    arguments=(SMOOTHING,),
)
MSE = NamedLoss(function=mse, lower_bound=0.0)
BCE_WITH_LOGITS = NamedLoss(function=bce_with_logits, lower_bound=0.0)
MODEL = NamedLoss(function=of_model, lower_bound=None, takes_pairs=False)
