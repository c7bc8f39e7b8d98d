"""The whole spectrum of a small symmetric operator, from its products with the unit vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def dense_eigenpairs(
    matvec: Callable[[Tensor], Tensor],
    dim: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tell: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """All eigenvalues [dim], ascending and in float64 on the host, and their unit vectors as rows [dim, dim].

    Args:
        matvec: [dim] → [dim], symmetric.
        dim: dimension.
        device: where the products are taken.
        dtype: of the products.
        tell: called with the number of products so far.
    """
    columns = []
    for i in range(dim):
        unit = torch.zeros(dim, device=device, dtype=dtype)
        unit[i] = 1.0
        columns.append(matvec(unit).to(dtype=torch.float64, device="cpu", copy=True))
        if tell:
            tell(i + 1)
    matrix = torch.stack(columns)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return values, vectors.T.to(device=device, dtype=dtype)
