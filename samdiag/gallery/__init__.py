"""The papers' own problems, small real ones, and the experiments on them that `samdiag demo` runs.

    samdiag inspect CKPT --problem samdiag.gallery:beale        # on the command line
    model = "beale"; data = "beale"; loss = "model"             # in a spec: the catalog's names
    import samdiag.gallery; samdiag.gallery.beale()             # in Python: a samdiag.Problem

Problems are loaded when they are used, so that importing this package does not import torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from samdiag import registry


class _Gallery(ModuleType):
    """A package in which `tanh_network` is the problem, also where a module of that name has been imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in registry.PROBLEMS or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Gallery


def __getattr__(name: str) -> Any:
    if name not in registry.PROBLEMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return registry.load(registry.PROBLEMS[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *registry.PROBLEMS})
