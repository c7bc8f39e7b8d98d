"""Float32 arithmetic in full precision: TensorFloat-32 and bfloat16 shortcuts off while something is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products and convolutions of float32 with all its 24 bits inside; the switches as they were on leaving.

    TF32 keeps 10 bits of the mantissa: a relative error of 1e-3 in every product, more than what an eigenvalue's
    residual is held to.
    """
    matmul = torch.get_float32_matmul_precision()
    backends: Any = torch.backends
    cudnn = (backends.cudnn.conv, backends.cudnn.rnn)
    shortcut = all(part.fp32_precision == "tf32" for part in cudnn)  # as torch.backends.cudnn.allow_tf32 leaves them
    try:
        if matmul != "highest":
            torch.set_float32_matmul_precision("highest")
        if shortcut:
            backends.cudnn.allow_tf32 = False
        others = (*cudnn, backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv)
        changed = [(part, part.fp32_precision) for part in others if part.fp32_precision in ("tf32", "bf16")]
        for part, _ in changed:
            part.fp32_precision = "ieee"
        try:
            yield
        finally:
            for part, precision in changed:
                part.fp32_precision = precision
    finally:
        if shortcut:
            backends.cudnn.allow_tf32 = True
        if matmul != "highest":
            torch.set_float32_matmul_precision(matmul)
