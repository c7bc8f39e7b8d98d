"""Whether a network is of a size that belongs to the checkpoint, before memory is taken for it.

The number of classes or the width may come from the checkpoint's own configuration: a file of some kilobytes must not
make a library build a network of a terabyte.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import shown

FREE_BYTES = 2 << 30  # a network of half a billion float32 parameters is built whatever the file's size
MAX_RATIO = 8  # of allocated to stored bytes: float8 in the file, float32 in memory, and as much again for initialising
FACTORIES = ("empty", "zeros", "ones", "full", "rand", "randn", "randint", "arange", "linspace", "eye", "empty_strided")


@contextmanager
def in_proportion(path: Path, described: str) -> Iterator[None]:
    """A context in which tensors are made as long as they could belong to a network of the checkpoint's size.

    Args:
        path: the checkpoint whose weights they are for, a file or a folder.
        described: the model, for messages.

    Raises:
        UsageError: from inside, before the memory is taken.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    makers = {getattr(torch, name) for name in FACTORIES}

    class Budget(TorchFunctionMode):
        left = FREE_BYTES + MAX_RATIO * stored_bytes(path)

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in makers and "out" not in kwargs:
                self.left -= func(*args, **{**kwargs, "device": "meta"}).nbytes
                if self.left < 0:
                    what = f"{described} is far larger than {shown(path)}, whose weights it is for"
                    raise UsageError(what, "check the arguments: the number of classes, the widths")
            return func(*args, **kwargs)

    with Budget():
        yield


def stored_bytes(path: Path) -> int:
    """The size of a file, or of all files directly in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    with os.scandir(path) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())
