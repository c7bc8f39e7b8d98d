"""Architectures compared by their tensors' names and shapes alone: short hashes that an index can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

Shapes = Mapping[str, tuple[int, ...]]  # the tensors of a state dict: name → shape

HASH_CHARACTERS = 16  # 64 bits: among some thousand architectures two agree by chance once in 10¹² indices
COUNTER = "num_batches_tracked"  # a batch-norm counter that older checkpoints lack
RESIZED = ("pos_embed", "relative_position", "pos_embedding", "rel_pos")  # their sizes follow the image size


def name_hash(names: Collection[str]) -> str:
    """The hash of the set of names; batch-norm counters do not count."""
    return _hash(sorted(name for name in names if name.rpartition(".")[2] != COUNTER))


def body_hash(shapes: Shapes, heads: Collection[str]) -> str:
    """The hash of all shapes but those that follow the data: heads, position tables, scalars.

    Args:
        shapes: of the whole state dict.
        heads: modules whose size follows the number of classes or of input channels.
    """
    fixed = {name: shape for name, shape in shapes.items() if shape and not follows_data(name, heads)}
    return _hash([f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(fixed.items())])


def follows_data(name: str, heads: Collection[str]) -> bool:
    """Whether the tensor's size depends on the number of classes, input channels or the image size."""
    return any(name.startswith(f"{head}.") for head in heads) or any(part in name for part in RESIZED)


def _hash(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:HASH_CHARACTERS]
