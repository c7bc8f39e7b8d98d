"""Symmetric matrices with a prescribed spectrum, as products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samdiag.curvature.deflation import Deflation, deflate, nothing_known
from samdiag.curvature.density import Quadrature, quadrature

DOUBLE = torch.float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A matrix with its eigenvalues, ascending, and its eigenvectors as rows."""

    values: NDArray[np.float64]
    vectors: Tensor
    matrix: Tensor

    @property
    def dim(self) -> int:
        return len(self.values)

    def product(self, v: Tensor) -> Tensor:
        return self.matrix.to(v) @ v

    def known(self, count: int, error: float = 0.0, seed: int = 0) -> Deflation:
        """`count` pairs of either end, their vectors off by `error`."""
        if count == 0:
            return nothing_known(self.vectors)
        ends = torch.cat([self.vectors[:count], self.vectors[-count:]])
        noise = torch.randn(ends.shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        return deflate(self.product, ends + error * noise / self.dim**0.5, rounding=1e-12)

    def probed(self, seed: int, *, probes: int, steps: int, count: int = 0, error: float = 0.0) -> Quadrature:
        return quadrature(
            self.product,
            self.dim,
            known=self.known(count, error, seed),
            num_probes=probes,
            num_steps=steps,
            generator=torch.Generator().manual_seed(seed + 1000),
            like=torch.zeros(self.dim, dtype=DOUBLE),
            rounding=1e-10,
        )


def with_spectrum(values: Tensor) -> Known:
    """A matrix with these eigenvalues in a random orthonormal basis."""
    generator = torch.Generator().manual_seed(1)
    values = values.double().sort().values
    vectors = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=DOUBLE)).Q.T
    return Known(values=values.numpy(), vectors=vectors, matrix=vectors.T @ torch.diag(values) @ vectors)


def network_like(dim: int = 120) -> Known:
    """Outliers at both ends, a bulk, and a third of the eigenvalues exactly zero."""
    generator = torch.Generator().manual_seed(0)
    outliers = torch.tensor([30.0, 12.0, 7.0, 4.0, -1.2, -0.8, -0.6, -0.5])
    bulk = torch.rand(dim - 8 - dim // 3, generator=generator) * 1.2 - 0.25
    return with_spectrum(torch.cat([outliers, torch.zeros(dim // 3), bulk]))


def few_values(dim: int = 120) -> Known:
    """Twelve different eigenvalues: the rules become exact, and only the probes' scatter is left."""
    values = torch.tensor([-1.0, -0.5, -0.2, 0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0, 8.0, 16.0])
    sizes = torch.tensor([1, 3, 8, dim - 63, 14, 12, 9, 7, 4, 2, 2, 1])
    return with_spectrum(torch.repeat_interleave(values, sizes))
