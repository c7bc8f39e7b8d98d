"""Models without memory: built for the names and shapes of their tensors, whatever their size."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def hollow(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes, its parameters on the meta device; warnings of the library are not shown.

    A constructor that computes with tensors (torchvision's RegNet) fails there and is run again with its parameters
    alone on the meta device.

    Raises:
        Exception: whatever `build` raises.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return build()
        except (NotImplementedError, RuntimeError):
            with _parameters_on_meta():
                return build()


def real(reason: str) -> str:
    """The reason why a model could not be built; empty where that lies in the meta device alone."""
    return "" if "meta" in reason.lower() else reason


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """The tensors of the model's state dict: name → shape."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if hasattr(value, "shape")}


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """A context in which every parameter loses its memory as soon as a module takes it."""
    from torch import nn

    register = nn.Module.register_parameter

    def register_hollow(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, None if param is None else nn.Parameter(param.to("meta"), param.requires_grad))

    nn.Module.register_parameter = register_hollow  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
