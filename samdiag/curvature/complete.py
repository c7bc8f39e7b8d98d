"""The whole spectrum of a small symmetric operator, from its products with the unit vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AT_ONCE = 64  # unit vectors in one product: many are cheaper together on small networks


def dense_eigenpairs(
    block_matvec: Callable[[Tensor], Tensor],
    dim: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tell: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """All eigenvalues [dim], ascending and in float64 on the host, and their unit vectors as rows [dim, dim].

    Args:
        block_matvec: [p, dim] → [p, dim], symmetric.
        dim: dimension.
        device: where the products are taken.
        dtype: of the products.
        tell: called with the number of products so far.
    """
    columns = []
    for units in torch.split(torch.eye(dim, device=device, dtype=dtype), AT_ONCE):
        columns.append(block_matvec(units).to(dtype=torch.float64, device="cpu", copy=True))
        if tell:
            tell(sum(len(part) for part in columns))
    matrix = torch.cat(columns)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return values, vectors.T.to(device=device, dtype=dtype)
