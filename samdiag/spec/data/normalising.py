"""Inputs scaled, shifted and divided as in training: (scale · x − mean)/std, mean and std for each channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.errors import UsageError
from samdiag.spec.data.options import Options

KNOWN: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # of the training images in [0, 1]: the constants of torchvision's and PyTorch's own example scripts
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # to [−1, 1]; also of timm's augreg ViTs
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """What is done to inputs of channels first, [channels, …] or [samples, channels, …]."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, options: Options) -> Normalisation:
        """From the arguments `scale`, `mean`, `std`, or `normalize` for a pair that has a name."""
        scale = options.number("scale", 1.0)
        mean, std = options.numbers("mean"), options.numbers("std")
        named = options.choice("normalize", None, tuple(KNOWN))
        if named is not None and (mean is not None or std is not None):
            raise UsageError("data.args has normalize as well as mean or std", "leave out one of them")
        if named is not None:
            mean, std = KNOWN[named]
        if std is not None and any(value <= 0 for value in std):
            raise UsageError("data.args.std has a value that is not positive", "give standard deviations")
        return cls(scale=scale, mean=mean or (0.0,), std=std or (1.0,))

    @property
    def is_identity(self) -> bool:
        return self == Normalisation()

    def apply(self, inputs: Tensor, channel: int = 1) -> Tensor:
        """The inputs, as floats where anything is done to them; `channel` is the dimension of the channels."""
        if self.is_identity:
            return inputs
        floats = inputs if inputs.is_floating_point() else inputs.to(torch.get_default_dtype())
        return (floats * self.scale - _shaped(self.mean, floats, channel)) / _shaped(self.std, floats, channel)


def _shaped(values: tuple[float, ...], inputs: Tensor, channel: int) -> Tensor:
    """The values so that they meet their channels."""
    if len(values) == 1:
        return torch.tensor(values[0], dtype=inputs.dtype)
    if inputs.dim() <= channel or inputs.shape[channel] != len(values):
        found = inputs.shape[channel] if inputs.dim() > channel else 0
        what = f"data.args.mean or std has {len(values)} values, and the inputs have {found} channels"
        raise UsageError(what, "give one number, or one for each channel; for grey images grayscale = true")
    return torch.tensor(values, dtype=inputs.dtype).reshape(-1, *[1] * (inputs.dim() - channel - 1))
