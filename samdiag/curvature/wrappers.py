"""Models inside wrappers, and modules that cannot be measured at all."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

INTEGER = (torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2)  # what quantised weights are packed in
QUANTISED = (  # where integer weights live, by the module that defines the class
    "torch.ao.nn.quantized",
    "torch.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "bitsandbytes",
    "gptqmodel",
    "auto_gptq",
    "awq",
    "quanto",
    "optimum.quanto",
    "hqq",
)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside torch.compile, DataParallel and DistributedDataParallel; the model itself if it is in none.

    DistributedDataParallel would wait for gradient hooks that products never fire.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def scripted(model: nn.Module) -> Iterator[str]:
    """Names of the modules that torch.jit made: they cannot be lent out and given back, and run fused kernels."""
    return (name or "the model" for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule))


def quantised(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Name and kind of every module whose weights are integers."""
    for name, module in model.named_modules():
        kind = type(module)
        if any(kind.__module__ == place or kind.__module__.startswith(place + ".") for place in QUANTISED):
            yield name or "the model", f"{kind.__module__}.{kind.__name__}"
            continue
        for own, p in module.named_parameters(recurse=False):
            if p.dtype in INTEGER or _packed(p.data):
                yield f"{name}.{own}".lstrip("."), f"{str(p.dtype).removeprefix('torch.')} {type(p.data).__name__}"


def _packed(data: torch.Tensor) -> bool:
    return any(kind.__module__.startswith("torchao.") for kind in type(data).__mro__)
