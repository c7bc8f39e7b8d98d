"""Batches as trees of tensors: counting, moving, comparing and halving them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from samdiag.errors import UsageError


def tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors of a batch, in order; any nesting of lists, tuples, dicts and registered containers."""
    return (leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor))


def plain(batch: Any) -> Any:
    """A batch that is a table of a kind that torch does not look into, as a dict; others as they are."""
    return dict(batch) if isinstance(batch, Mapping) and type(batch) not in pytree.SUPPORTED_NODES else batch


def count_samples(batch: Any) -> int:
    """First dimension of the first tensor that has one; 1 for a batch of plain numbers (a problem without data).

    Raises:
        UsageError: the batch is a container that cannot be looked into.
    """
    first = next((t for t in tensors(batch) if t.dim() > 0), None)
    if first is not None:
        return int(first.shape[0])
    for leaf in pytree.tree_leaves(batch):
        if not isinstance(leaf, (Tensor, bool, int, float, complex, str, bytes, np.ndarray, np.generic)):
            raise UsageError(
                f"a batch holds a {type(leaf).__name__}, whose tensors cannot be seen",
                "yield tensors, lists, tuples or plain dicts, e.g. dict(batch)",
            )
    return 1


def move(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The batch on `device`, floating-point tensors as `dtype`; integers keep their type. Always new storage."""

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        target = dtype if leaf.is_floating_point() else leaf.dtype
        return leaf.detach().to(device=device, dtype=target, copy=True)

    return pytree.tree_map(place, batch)


def halve(batch: Any, num_samples: int) -> tuple[Any, Any] | None:
    """The batch cut in two along the first dimension, or None when there is no tensor of that length to cut.

    Right when the loss is a mean over samples: the halves are then weighted by their counts.
    """
    if num_samples < 2 or not can_be_cut(batch, num_samples):
        return None
    middle = num_samples // 2
    return _part(batch, num_samples, slice(0, middle)), _part(batch, num_samples, slice(middle, None))


def cut_into(batch: Any, num_samples: int, size: int) -> list[tuple[Any, int]]:
    """The batch in pieces of at most `size` samples with their counts; whole where it is small or cannot be cut."""
    if num_samples <= size or not can_be_cut(batch, num_samples):
        return [(batch, num_samples)]
    starts = range(0, num_samples, size)
    return [(_part(batch, num_samples, slice(i, i + size)), min(size, num_samples - i)) for i in starts]


def regroup(pieces: list[tuple[Any, int]], size: int) -> list[list[tuple[Any, int]]]:
    """The pieces as groups of about `size` samples each: large ones cut into equal parts, small ones put together.

    A batch of c ≥ size samples gives round(c/size) parts; what cannot be cut stays whole. A last group of less than
    half the size is shared into the one before it.
    """
    parts: list[tuple[Any, int]] = []
    for data, count in pieces:
        share = -(-count // max(1, round(count / size)))
        parts += cut_into(data, count, share)
    groups: list[list[tuple[Any, int]]] = []
    current: list[tuple[Any, int]] = []
    for part in parts:
        current.append(part)
        if sum(count for _, count in current) + part[1] / 2 > size:
            groups.append(current)
            current = []
    if current and groups and sum(count for _, count in current) < size / 2:
        groups[-1] = groups[-1] + current
    elif current:
        groups.append(current)
    return groups


def join(pieces: list[tuple[Any, int]]) -> tuple[Any, int] | None:
    """The pieces as one batch, concatenated along the first dimension; None where their trees do not fit together."""
    if len(pieces) == 1:
        return pieces[0]
    flat = [pytree.tree_flatten(data) for data, _ in pieces]
    structure = flat[0][1]
    if any(other != structure for _, other in flat):
        return None
    leaves = []
    for column in zip(*(values for values, _ in flat), strict=True):
        first = column[0]
        if not isinstance(first, Tensor):
            leaves.append(first)
        elif all(t.dim() > 0 and t.shape[0] == n for t, (_, n) in zip(column, pieces, strict=True)):
            if any(t.shape[1:] != first.shape[1:] for t in column):
                return None
            leaves.append(torch.cat(column))
        elif all(torch.equal(t, first) for t in column):
            leaves.append(first)
        else:
            return None
    return pytree.tree_unflatten(leaves, structure), sum(count for _, count in pieces)


def pick(batch: Any, num_samples: int, indices: Tensor) -> Any:
    """The batch's samples at `indices` (on any device); what has no dimension of samples stays as it is."""

    def choose(leaf: Any) -> Any:
        per_sample = isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == num_samples
        return leaf[indices.to(leaf.device)] if per_sample else leaf

    return pytree.tree_map(choose, batch)


def can_be_cut(batch: Any, num_samples: int) -> bool:
    """Whether some tensor of the batch has the samples along its first dimension."""
    return any(t.dim() > 0 and t.shape[0] == num_samples for t in tensors(batch))


def _part(batch: Any, num_samples: int, part: slice) -> Any:
    def cut(leaf: Any) -> Any:
        return leaf[part] if isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == num_samples else leaf

    return pytree.tree_map(cut, batch)


def same(first: Any, second: Any) -> bool:
    """Whether two batches hold equal tensors in the same places (NaN equals NaN)."""
    a, b = list(tensors(first)), list(tensors(second))
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and bool(torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)))
        for x, y in zip(a, b, strict=True)
    )
