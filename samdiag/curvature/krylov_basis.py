"""Orthonormal rows for Krylov methods: grown without copying, orthogonalised against, combined and compressed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK = 32  # rows allocated at a time: growing never copies, and a product with a chunk is one BLAS call
SLAB = 1 << 16  # columns compressed at a time: the scratch space stays at SLAB × rows, whatever the dimension
REORTHOGONALISE_AGAIN = 1.0 / math.sqrt(2.0)  # Daniel, Gragg, Kaufman & Stewart 1976: again when more was cancelled


def lengths(rows: Tensor) -> Tensor:
    """‖row‖ of each row [p], summed in float64 (torch's float32 sum over 10⁶ entries is off by 1e-4 on the CPU)."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms


def normalised(rows: Tensor) -> Tensor:
    """Every row [p, dim] divided by its length, in place."""
    return rows.div_(lengths(rows)[:, None].to(rows.dtype))


class KrylovBasis:
    """Rows V [size, dim] of unit length, orthogonal to each other to working precision.

    Attributes:
        capacity: rows that may be held at once; the caller compresses before it is exceeded.
        size: rows held.
    """

    def __init__(self, capacity: int, dim: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.capacity, self.dim, self.device, self.dtype = capacity, dim, device, dtype
        self.size = 0
        self._chunks: list[Tensor] = []

    def append(self, rows: Tensor) -> None:
        """Adds unit `rows` [p, dim] that are orthogonal to what is held and to each other."""
        for row in rows:
            if self.size == sum(len(c) for c in self._chunks):
                more = min(CHUNK, self.capacity - self.size)
                self._chunks.append(torch.empty(more, self.dim, device=self.device, dtype=self.dtype))
            self._chunks[self.size // CHUNK][self.size % CHUNK].copy_(row)
            self.size += 1

    def orthogonalise(self, rows: Tensor, *, recent: int = 0) -> Tensor:
        """Removes from `rows` [p, dim], in place, what lies in the basis; returns the coefficients [size, p].

        What lies in the `recent` newest rows, for a Krylov step nearly all, goes first; then up to two passes of one
        matrix product each over all rows. The second is left out on the CPU when the first cancelled little, which
        costs a look at the norms (on a GPU looking costs more than the pass).
        """
        total = torch.zeros(self.size, len(rows), device=self.device, dtype=self.dtype)
        if not self.size:
            return total
        for i in range(max(0, self.size - recent), self.size):
            newest = self._chunks[i // CHUNK][i % CHUNK]
            total[i] = rows @ newest
            rows.addmm_(total[i][:, None], newest[None], alpha=-1.0)
        looks = rows.device.type == "cpu"
        before = torch.linalg.vector_norm(rows, dim=1) if looks else None
        for _ in range(2):
            coefficients = self.coefficients(rows)
            start = 0
            for chunk in self._filled():
                rows.addmm_(coefficients[start : start + len(chunk)].T, chunk, alpha=-1.0)
                start += len(chunk)
            total += coefficients
            if before is not None:
                after = torch.linalg.vector_norm(rows, dim=1)
                if bool((after > REORTHOGONALISE_AGAIN * before).all()):
                    break
                before = after
        return total

    def coefficients(self, rows: Tensor) -> Tensor:
        """V rowsᵀ [size, p]."""
        return torch.cat([chunk @ rows.T for chunk in self._filled()])

    def combine(self, columns: Tensor) -> Tensor:
        """Linear combinations Cᵀ V [k, dim] for `columns` C [size, k] (float64, host)."""
        weights = columns.T.to(device=self.device, dtype=self.dtype)
        result = torch.zeros(weights.shape[0], self.dim, device=self.device, dtype=self.dtype)
        start = 0
        for chunk in self._filled():
            result.addmm_(weights[:, start : start + len(chunk)], chunk)
            start += len(chunk)
        return result

    def subtract(self, coefficients: Tensor, row: Tensor) -> None:
        """Takes coefficients[i]·row away from every row i, in place; for rows that are no longer orthonormal."""
        weights = coefficients.to(device=self.device, dtype=self.dtype)
        start = 0
        for chunk in self._filled():
            chunk.addr_(weights[start : start + len(chunk)], row, alpha=-1.0)
            start += len(chunk)

    def gram(self) -> Tensor:
        """V Vᵀ [size, size] in float64 on the host, slab by slab."""
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.device)
        for first in range(0, self.dim, SLAB):
            slab = torch.cat([chunk[:, first : first + SLAB] for chunk in self._filled()]).double()
            total += slab @ slab.T
        return total.cpu()

    def compress(self, columns: Tensor) -> None:
        """Replaces the rows by the combinations Cᵀ V for orthonormal `columns` C [size, k], slab by slab."""
        k = columns.shape[1]
        weights = columns.T.to(device=self.device, dtype=self.dtype)
        for first in range(0, self.dim, SLAB):
            part = slice(first, first + SLAB)
            mixed = weights @ torch.cat([chunk[:, part] for chunk in self._filled()])
            for i in range(0, k, CHUNK):
                chunk = self._chunks[i // CHUNK]
                chunk[: min(CHUNK, k - i), part] = mixed[i : i + CHUNK]
        self.size = k

    def _filled(self) -> list[Tensor]:
        full, rest = divmod(self.size, CHUNK)
        return [*self._chunks[:full], *([self._chunks[full][:rest]] if rest else [])]
