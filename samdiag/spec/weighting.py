"""A named loss made ready for its data: its arguments, every target counted the same, and its lower bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.batches import LABELS
from samdiag.spec.losses import IGNORED, SMOOTHING, NamedLoss
from samdiag.suggesting import did_you_mean
from samdiag.user_errors import user_code

RAGGED_MODEL = (
    "samples have different numbers of labels: the model's own loss is averaged over the labels of a batch, and "
    "batches are weighted by their samples; loss = causal_lm, or cross_entropy, counts every label the same"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A loss as a Problem takes it.

    Attributes:
        function: `loss(model, batch)` → the mean over the batch's samples.
        lower_bound: what it can never go below; None: unknown.
        notes: one line each.
    """

    function: Callable[[Any, Any], Tensor]
    lower_bound: float | None
    notes: tuple[str, ...] = ()


def bind(name: str, args: Mapping[str, Any], model: nn.Module, batches: Iterable[Any], samples: int | None) -> Bound:
    """The loss `name` for these batches.

    A mean over the targets of a batch (tokens that are predicted, pixels that have a class) counts a target of a
    batch with few of them more than one of a full batch. Where samples have different numbers of targets the loss of a
    batch is therefore the sum over its targets, divided by its samples times the mean number per sample. Its mean over
    samples is then the mean over all targets, whatever the batches.

    Args:
        name: of the loss.
        args: of the spec: label_smoothing.
        model: evaluated once on a sample where label_smoothing is given, to see the number of classes.
        batches: gone through once where samples may have many targets.
        samples: how many are analysed; None: all.

    Raises:
        UsageError: an argument is unknown or out of range.
    """
    named: NamedLoss = registry.load(registry.LOSSES[name])
    smoothing = _smoothing(name, args, named)
    keywords: dict[str, Any] = {SMOOTHING: smoothing} if smoothing else {}
    lower = named.lower_bound
    counts = _targets_per_sample(named, batches, samples)
    if counts.numel() and bool((counts != counts[0]).any()):
        if named.targets is None:
            return Bound(function=named.function, lower_bound=lower, notes=(RAGGED_MODEL,))
        keywords["targets_per_sample"] = float(counts.double().mean())
    if smoothing and named.num_classes is not None:
        lower = smoothed_entropy(smoothing, _num_classes(named, model, batches))
    function = partial(named.function, **keywords) if keywords else named.function
    return Bound(function=function, lower_bound=lower)


def smoothed_entropy(smoothing: float, num_classes: int) -> float:
    """What cross-entropy with label smoothing ε over K classes cannot go below.

    The smoothed target has 1 − ε + ε/K at the class and ε/K elsewhere; cross-entropy with it is least, and equal to its
    entropy, where the model predicts just that. Of a target that is a mixture of classes the entropy is larger still.
    """
    rest = smoothing / num_classes
    at_class = 1.0 - smoothing + rest
    return -(at_class * math.log(at_class) if at_class > 0 else 0.0) - (num_classes - 1) * rest * math.log(rest)


def _smoothing(name: str, args: Mapping[str, Any], named: NamedLoss) -> float:
    """The label_smoothing asked for, 0 where none is."""
    for key in args:
        if key not in named.arguments:
            known = ", ".join(named.arguments) or "none"
            what = f"loss.args.{shown(key)} is unknown to loss = {name}{did_you_mean(key, named.arguments)}"
            raise UsageError(what, f"arguments that it takes: {known}")
    value = args.get(SMOOTHING, 0.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UsageError(f"loss.args.{SMOOTHING} = {quoted(value)} must be between 0 and 1", "correct it")
    return float(value)


def _targets_per_sample(named: NamedLoss, batches: Iterable[Any], samples: int | None) -> Tensor:
    """How many targets each of the first `samples` samples has [samples]; empty where each has one."""
    found: list[Tensor] = []
    total = 0
    for batch in batches:
        targets = named.targets(batch) if named.targets is not None else _labels_of(batch)
        if not isinstance(targets, Tensor) or targets.dim() < 2 or targets.is_floating_point():
            return torch.empty(0)
        found.append((targets != IGNORED).flatten(1).sum(1))
        total += len(targets)
        if samples is not None and total >= samples:
            break
    return torch.cat(found) if found else torch.empty(0)


def _labels_of(batch: Any) -> Any:
    return batch.get(LABELS) if isinstance(batch, Mapping) else None


def _num_classes(named: NamedLoss, model: nn.Module, batches: Iterable[Any]) -> int:
    """Classes that the model tells apart, from one evaluation."""
    from samdiag.curvature.batches import count_samples, move, pick, plain

    assert named.num_classes is not None
    first = plain(next(iter(batches)))
    weight = next(model.parameters(), torch.empty(0))
    sample = move(pick(first, count_samples(first), torch.tensor([0])), weight.device, weight.dtype)
    was_training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad(), user_code("the loss", "correct the model or the data: they do not fit together"):
            return named.num_classes(model, sample)
    finally:
        for module, mode in was_training.items():
            module.training = mode
