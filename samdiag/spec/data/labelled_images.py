"""Images with class numbers as a Dataset: decoded when asked for, the file named where that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from samdiag.spec.data.images import Preparation, check_same_size


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Pairs (input, class number).

    Args:
        sources: what `read` takes, one for each sample.
        targets: their class numbers.
        read: source → (Pillow image, what to call it).
        preparation: how an image becomes an input.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        targets: Sequence[int],
        read: Callable[[Any], tuple[Any, str]],
        preparation: Preparation,
    ) -> None:
        self.sources, self.targets, self.read, self.preparation = sources, targets, read, preparation

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.read(self.sources[index])
        return self.preparation.tensor(image, label), self.targets[index]

    def __len__(self) -> int:
        return len(self.targets)


def collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """The samples as one batch: inputs [n, channels, height, width] and targets [n]."""
    check_same_size({tuple(image.shape) for image, _ in samples})
    return torch.stack([image for image, _ in samples]), torch.tensor([target for _, target in samples])
