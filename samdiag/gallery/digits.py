"""Handwritten digits of 8×8 pixels and a small network for them: `digits` and `digits-mlp` of the catalog.

Data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (test part), UCI Machine Learning Repository,
1998, doi:10.24432/C50P49, as shipped by scikit-learn. Licence: CC BY 4.0. See DATA.md beside this file.
"""

from __future__ import annotations

from importlib import resources
from itertools import pairwise

import safetensors.torch
import torch
from torch import nn
from torch.utils.data import TensorDataset

from samdiag.errors import UsageError

NUM_INPUTS = 64  # 8×8 pixels
NUM_CLASSES = 10
LARGEST_PIXEL = 16  # the data set counts dark pixels in blocks of 4×4
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
MOST_HIDDEN = 4096  # a checkpoint's stamp may name this factory: it may not ask for all memory
DEEPEST = 16


def dataset() -> TensorDataset:
    """All 1797 digits: inputs float32 [1797, 64] in [0, 1], targets int64 [1797], in the order of the source.

    The pixels are divided by 16 and not standardised: some are zero in every image.
    """
    content = (resources.files("samdiag.gallery") / "digits.safetensors").read_bytes()
    tensors = safetensors.torch.load(content)
    inputs = tensors["images"].flatten(1).to(torch.float32) / LARGEST_PIXEL
    return TensorDataset(inputs, tensors["labels"].to(torch.int64))


def mlp(hidden: int = 32, activation: str = "tanh", depth: int = 1) -> nn.Sequential:
    """The network 64 → hidden (`depth` times) → 10 with biases, in PyTorch's default initialisation; it returns logits.

    Args:
        hidden: width of each hidden layer; the default gives 2410 parameters, few enough for a dense Hessian.
        activation: tanh, relu, gelu or silu. The default is smooth, so that second derivatives exist everywhere.
        depth: number of hidden layers.

    Raises:
        UsageError: an argument is not usable.
    """
    if activation not in ACTIVATIONS:
        raise UsageError(f"digits-mlp has no activation {str(activation)[:40]!r}", f"choose {', '.join(ACTIVATIONS)}")
    _check_count("hidden", hidden, MOST_HIDDEN)
    _check_count("depth", depth, DEEPEST)
    widths = [NUM_INPUTS] + [hidden] * depth
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], NUM_CLASSES))


def _check_count(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UsageError(f"digits-mlp cannot have {name} = {str(value)[:40]}", f"give a whole number from 1 to {most}")
