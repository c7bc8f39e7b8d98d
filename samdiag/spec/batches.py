"""What a data factory returned, as batches that can be gone through again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset

from samdiag.errors import UsageError

BATCH_SIZE = 256  # large enough to keep a CPU busy, small enough for the memory of a graph
LABELS = "labels"  # what a batch that is a table calls its targets, as Hugging Face does
MIN_BATCHES = 8  # the spread between batches is what the sampling error is estimated from


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Re-iterable batches and what is known about where they come from.

    Attributes:
        items: each item is what the loss takes.
        population: size of the whole dataset; None where only batches are known.
        as_in_training: whether the user cut them, so that their size may say the training batch size.
        notes: one line each.
    """

    items: Iterable[Any]
    population: int | None
    as_in_training: bool
    notes: tuple[str, ...] = ()


class Columns(Dataset[dict[str, Tensor]]):
    """Tensors by name, one row for each sample: batches are tables, as Hugging Face models take them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def __getitem__(self, index: Any) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))


class Slices:
    """Batches of a TensorDataset or of columns, gathered row sets at a time: what a DataLoader would give, at once."""

    def __init__(self, dataset: TensorDataset | Columns, batch_size: int, order: Tensor) -> None:
        self.dataset = dataset
        self.order = order
        self.batch_size = batch_size
        self.num_samples = len(order)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self.num_samples, self.batch_size):
            yield self.dataset[self.order[start : start + self.batch_size]]

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)


def cut(
    returned: Any,
    *,
    num_samples: int | None,
    batch_size: int | None,
    seed: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Batches:
    """Batches of what a data factory returned: a Dataset is shuffled once and cut, batches are taken as they are.

    The shuffle is what makes batches comparable: a data set sorted by class would give one-class batches, a first part
    that is no sample of the whole, and a noise estimate that is far too large.

    Args:
        returned: a map-style Dataset, or a re-iterable of batches (a list, a DataLoader).
        num_samples: how many samples of a Dataset are taken, at random; None: all.
        batch_size: of a Dataset's batches; default 256, and smaller where there would be fewer than 8 batches.
        seed: of the shuffle.
        collate: how a Dataset's samples become a batch; None: as torch does it.

    Raises:
        UsageError: it is empty, can be gone through only once, or is no data at all.
    """
    if isinstance(returned, Dataset) and not isinstance(returned, IterableDataset):
        return _cut_dataset(returned, num_samples, batch_size, seed, collate)
    if num_samples is not None or batch_size is not None:
        todo = "leave them out, or return a torch Dataset"
        raise UsageError("data.num_samples and data.batch_size cut a Dataset, and data returned batches", todo)
    _check_batches(returned)
    loader = isinstance(returned, DataLoader) and isinstance(returned.sampler, RandomSampler)
    notes = ("the DataLoader shuffles: every pass sees the samples in another order",) if loader else ()
    return Batches(items=returned, population=None, as_in_training=True, notes=notes)


def first_batch(batches: Iterable[Any]) -> Any:
    """The first batch, or UsageError where there is none."""
    for batch in batches:
        return batch
    raise UsageError("data has no batches", "return at least one batch")


def check_pairs(batch: Any, loss: str) -> None:
    """Nothing, or UsageError where a named loss meets a batch that is neither (inputs, targets) nor has labels."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return
    if isinstance(batch, Mapping) and LABELS in batch:
        return
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list, Mapping)) else ""
    found = f"a {type(batch).__name__}{size}"
    what = f"loss = {loss} takes batches (inputs, targets) or tables with {LABELS}, and data yields {found}"
    raise UsageError(what, 'name a function of your own: loss = "module:function", taking (model, batch)')


def _cut_dataset(
    dataset: Any,
    num_samples: int | None,
    batch_size: int | None,
    seed: int,
    collate: Callable[[list[Any]], Any] | None,
) -> Batches:
    try:
        population = len(dataset)
    except TypeError:
        raise UsageError("data returned a Dataset without a length", "define __len__, or return batches") from None
    if population == 0:
        raise UsageError("data returned an empty Dataset", "return at least one sample")
    taken = min(num_samples or population, population)
    size = min(batch_size or BATCH_SIZE, max(taken // MIN_BATCHES, 1))
    own = torch.Generator().manual_seed(seed)  # not the global generator, which a pass over a DataLoader draws from
    order = torch.randperm(population, generator=own)[:taken]
    items: Iterable[Any]
    if type(dataset) in {TensorDataset, Columns}:
        items = Slices(dataset, size, order)
    else:
        part = Subset(dataset, order.tolist())
        items = DataLoader(part, batch_size=size, shuffle=False, generator=own, collate_fn=collate)
    return Batches(items=items, population=population, as_in_training=False)


def _check_batches(returned: Any) -> None:
    if isinstance(returned, Iterator):
        todo = "return list(…), a DataLoader or a Dataset: measuring goes through the data many times"
        raise UsageError(f"data returned a {type(returned).__name__}, which can be gone through only once", todo)
    if isinstance(returned, tuple) and len(returned) == 2 and all(isinstance(item, Tensor) for item in returned):
        todo = "return torch.utils.data.TensorDataset(inputs, targets), or a list of (inputs, targets) batches"
        raise UsageError("data returned two tensors and not batches", todo)
    if not isinstance(returned, Iterable) or isinstance(returned, (Tensor, str, bytes, Mapping, IterableDataset)):
        todo = "return a torch Dataset, a DataLoader or a list of batches"
        raise UsageError(f"data returned a {type(returned).__name__}, which is neither a Dataset nor batches", todo)
