"""The samples that carry most of the loss: near the end of training a few of them make up nearly all of the Hessian."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from samdiag.curvature.batches import can_be_cut, join, pick
from samdiag.curvature.objective import Objective

SHARE = 0.95  # of the loss that the chosen samples carry: fewer led astray on four of five digits networks
MOST = 0.3  # of the samples at most: more would cost what they save
FEWEST = 64  # fewer samples, and a product over them is all overhead
AGREEMENT = 1e-3  # of the batch's loss: the mean of its samples' losses must be it, or the loss is no mean over samples
CHUNK = 256  # samples evaluated at once


def heaviest_samples(objective: Objective) -> list[tuple[Any, int]] | None:
    """The fewest samples that carry SHARE of the loss, as pieces with their counts.

    For cross-entropy a sample's Hessian vanishes with its loss, so the mean over all samples is nearly the sum over
    these. None where they are not few (at most MOST of them), where samples cannot be told apart, or where BatchNorm
    uses the batch.
    """
    total = objective.num_samples
    if objective.train_mode or MOST * total < FEWEST:
        return None
    losses: list[Tensor] = []
    for data, count in zip(objective.batches, objective.counts, strict=True):
        own = _sample_losses(objective, data, count)
        if own is None:
            return None
        losses.append(own)
    every = torch.cat(losses)
    ordered, order = every.sort(descending=True, stable=True)
    carried = ordered.cumsum(0) / ordered.sum()
    needed = max(FEWEST, int((carried < SHARE).sum()) + 1)
    if not bool(torch.isfinite(carried).all()) or needed > MOST * total or bool((every < 0).any()):
        return None
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[:needed]] = True
    return _pieces(objective, list(torch.split(chosen, objective.counts)))


def _pieces(objective: Objective, chosen: list[Tensor]) -> list[tuple[Any, int]]:
    """The chosen samples of every batch, put together where they fit together."""
    parts = [
        (pick(data, count, torch.nonzero(which)[:, 0]), int(which.sum()))
        for data, count, which in zip(objective.batches, objective.counts, chosen, strict=True)
        if bool(which.any())
    ]
    size = max(objective.counts)
    groups: list[list[tuple[Any, int]]] = []
    for part in parts:
        if groups and sum(count for _, count in groups[-1]) + part[1] <= size:
            groups[-1].append(part)
        else:
            groups.append([part])
    pieces: list[tuple[Any, int]] = []
    for group in groups:
        joined = join(group)
        pieces += [joined] if joined is not None else group
    return pieces


def _sample_losses(objective: Objective, data: Any, count: int) -> Tensor | None:
    """The loss [count] of every sample on its own; None where that cannot be had."""
    leaves, structure = pytree.tree_flatten(data)
    axes = tuple(0 if isinstance(t, Tensor) and t.dim() > 0 and t.shape[0] == count else None for t in leaves)
    if not can_be_cut(data, count):
        return None

    def one(*sample: Any) -> Tensor:
        alone = [t if axis is None else t[None] for t, axis in zip(sample, axes, strict=True)]
        value: Tensor = objective.loss_function(objective.model, pytree.tree_unflatten(alone, structure))
        return value.reshape(())

    try:
        with torch.no_grad():
            own = torch.vmap(one, in_dims=axes, randomness="error", chunk_size=CHUNK)(*leaves)
            whole = objective.loss_function(objective.model, data)
    except Exception:  # whatever the user's code does under vmap: the samples are then not told apart
        return None
    if own.shape != (count,) or abs(float(own.mean()) - float(whole)) > AGREEMENT * abs(float(whole)):
        return None
    return own.detach().double().cpu()
