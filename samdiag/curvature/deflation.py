"""Known eigenpairs taken out of an operator, and what their errors can move in the rest of its spectrum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ACCEPTED = 0.1  # residual over |value|: a worse pair is left in the rest, where nothing is assumed about it
NEAR = 2.0  # residuals: closer to a point than this, a pair's residual counts in full

Matvec = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflation:
    """Ritz pairs (value, unit vector) with their residuals, and the operator's image of each.

    Attributes:
        values: [k] float64. residuals: [k] ‖Hv − value·v‖ with rounding.
        vectors, images: [k, d]; orthonormal rows and H applied to them.
    """

    values: Array
    residuals: Array
    vectors: Tensor
    images: Tensor

    def project(self, v: Tensor) -> Tensor:
        """`v` [d] without its components along the known vectors."""
        if not len(self.vectors):
            return v
        for _ in range(2):
            v = v - self.vectors.T @ (self.vectors @ v)
        return v

    def rest(self, product: Matvec) -> Matvec:
        """The operator on the complement: P H P for vectors that lie in it."""
        return lambda v: self.project(product(v))

    def shifts(self, points: Array) -> tuple[Array, Array, Array]:
        """How far the residuals may move the count of eigenvalues below each point: (full, down, up), [n] each.

        With w = `full`: N(H < t) lies between N(known < t − w) + N(rest < t − w − down) and
        N(known < t + w) + N(rest < t + w + up).

        A pair far from t acts on the rest through the Schur complement, by at most r²/|value − t|, in a known
        direction; one near t by at most r (Weyl). Both leave the inertia of H − t as it is said here.

        Source: Haynsworth's inertia additivity; Weyl's inequality.
        """
        gaps = self.values[None, :] - points[:, None]
        squares = np.broadcast_to(self.residuals[None, :] ** 2, gaps.shape)
        near = np.abs(gaps) <= NEAR * self.residuals[None, :]
        full = np.sqrt(np.where(near, squares, 0.0).sum(axis=1))
        clear = np.maximum(np.abs(gaps) - full[:, None], 1e-300)
        shift = np.where(near, 0.0, squares / clear)
        return full, np.where(gaps < 0, shift, 0.0).sum(axis=1), np.where(gaps > 0, shift, 0.0).sum(axis=1)


def deflate(product: Matvec, vectors: Tensor, *, rounding: float) -> Deflation:
    """The Ritz pairs in the span of `vectors` [k, d] that are good enough to be called known; k products.

    Args:
        product: [d] → [d], symmetric.
        vectors: approximate eigenvectors, nearly orthonormal.
        rounding: absolute error that floating point leaves in an eigenvalue; added to the residuals.
    """
    if not len(vectors):
        return nothing_known(vectors)
    rows = torch.linalg.qr(vectors.T.double()).Q.T
    images = torch.stack([product(q.to(vectors.dtype)).double() for q in rows])
    small = rows @ images.T
    values, mixing = torch.linalg.eigh((small + small.T) / 2)
    rows, images = mixing.T @ rows, mixing.T @ images
    residuals = torch.linalg.vector_norm(images - values[:, None] * rows, dim=1)
    keep = residuals <= ACCEPTED * values.abs()
    return Deflation(
        values=values[keep].cpu().numpy(),
        residuals=residuals[keep].cpu().numpy() + rounding,
        vectors=rows[keep].to(vectors),
        images=images[keep].to(vectors),
    )


def nothing_known(like: Tensor) -> Deflation:
    """No pairs; `like` [anything, d] says where vectors live."""
    none = np.zeros(0)
    return Deflation(values=none, residuals=none, vectors=like[:0], images=like[:0])
