"""What one random vector says about a spectrum: its Gauss rule by Lanczos, and bounds on its cumulative weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BREAKDOWN = 10.0  # units of eps: relative residual norm below which the Krylov space is invariant to rounding
FARTHEST_NODE = 1e8  # of the spread: where a rule with a prescribed node would put another one at infinity
MOST_ENTRIES = 10**7  # of the stacked small matrices solved at once: 80 MB

Matvec = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussRule:
    """Gauss quadrature for the measure Σᵢ (uᵢ·v)² δ(λᵢ) of a unit vector v = z/‖z‖, eigenpairs (λᵢ, uᵢ).

    Exact for polynomials of degree 2m − 1.

    Attributes:
        nodes: [m] ascending Ritz values; weights [m], positive, summing to 1.
        alpha, beta: [m] the Lanczos matrix; beta[m−1] is the norm of the last residual, 0 where the Krylov space is
            invariant and the rule is the measure itself.
        last: [m] last components of the Lanczos matrix's eigenvectors, as `nodes`.
        mass: ‖z‖².

    Source: Golub & Meurant, Matrices, Moments and Quadrature, ch. 6.
    """

    nodes: Array
    weights: Array
    alpha: Array
    beta: Array
    last: Array
    mass: float

    def cumulative_bounds(self, points: Array) -> tuple[Array, Array]:
        """Lower bounds on the weight below each point, and upper bounds on that up to and including it: [k] each.

        Of all measures with the same 2m moments, the rule with m + 1 nodes one of which is the point itself has the
        least weight below the point and the most up to it.

        Source: Chebyshev, Markov and Stieltjes' inequalities (Karlin & Studden, Tchebycheff Systems, ch. IV); as bounds
        for SLQ: Chen, Trogdon & Ubaru, Analysis of stochastic Lanczos quadrature (2021), Sec. 4.
        """
        if self.beta[-1] == 0.0 or not len(points):
            below = np.array([self.weights[self.nodes < t].sum() for t in points], dtype=np.float64)
            up_to = np.array([self.weights[self.nodes <= t].sum() for t in points], dtype=np.float64)
            return below, up_to
        size = max(1, MOST_ENTRIES // (len(self.nodes) + 1) ** 2)
        parts = [self._with_node_at(points[i : i + size]) for i in range(0, len(points), size)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _with_node_at(self, points: Array) -> tuple[Array, Array]:
        m, count = len(self.nodes), len(points)
        spread = float(self.nodes[-1] - self.nodes[0]) + float(self.beta.max())
        limit = FARTHEST_NODE * spread
        gaps = self.nodes[None, :] - points[:, None]
        gaps = np.where(gaps == 0, spread / FARTHEST_NODE**2, gaps)
        last = np.clip(points + self.beta[-1] ** 2 * (self.last**2 / gaps).sum(axis=1), -limit, limit)
        extended = np.zeros((count, m + 1, m + 1))
        diagonal = np.arange(m)
        extended[:, diagonal, diagonal] = self.alpha
        extended[:, diagonal, diagonal + 1] = extended[:, diagonal + 1, diagonal] = self.beta
        extended[:, m, m] = last
        nodes, vectors = np.linalg.eigh(extended)
        weights = vectors[:, 0, :] ** 2
        here = np.abs(nodes - points[:, None]).argmin(axis=1)
        cumulative = np.concatenate([np.zeros((count, 1)), weights.cumsum(axis=1)], axis=1)
        rows = np.arange(count)
        return cumulative[rows, here], cumulative[rows, here + 1]


def gauss_rule(product: Matvec, start: Tensor, steps: int) -> GaussRule:
    """The rule of `start` [d] from at most `steps` products with a symmetric operator, fully reorthogonalised.

    Source: Golub & Van Loan, Matrix Computations, ch. 10.
    """
    basis = torch.empty(steps, start.numel(), device=start.device, dtype=start.dtype)
    norm = float(torch.linalg.vector_norm(start.double()))
    following = start / norm
    alpha: list[float] = []
    beta: list[float] = []
    scale, limit = 0.0, BREAKDOWN * torch.finfo(start.dtype).eps
    for k in range(steps):
        basis[k].copy_(following)
        image = product(basis[k]).to(start.dtype)
        alpha.append(float(torch.dot(basis[k].double(), image.double())))
        scale = max(scale, float(torch.linalg.vector_norm(image)))
        rows = basis[: k + 1]
        for _ in range(2):  # twice is enough
            image = image - rows.T @ (rows @ image)
        rest = float(torch.linalg.vector_norm(image))
        if rest <= limit * scale or k + 1 == start.numel():
            beta.append(0.0)
            break
        beta.append(rest)
        following = image / rest
    return rule_of(np.array(alpha), np.array(beta), mass=norm**2)


def rule_of(alpha: Array, beta: Array, *, mass: float) -> GaussRule:
    """The rule of a Lanczos matrix: diagonal `alpha` [m], off-diagonal `beta` [m] with the last residual's norm."""
    small = np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)
    nodes, vectors = np.linalg.eigh(small)
    return GaussRule(nodes=nodes, weights=vectors[0] ** 2, alpha=alpha, beta=beta, last=vectors[-1], mass=mass)
