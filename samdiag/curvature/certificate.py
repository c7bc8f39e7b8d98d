"""How far a Ritz value can be from the end of the spectrum: a bound with a probability over the random start vector."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

STEPS = 60  # of bisection: to the last bit of a double


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How the component of an eigenvector in the start block follows from that in the residual block of one cycle.

    In a cycle H V = V T + Q S with T = U diag(theta) Uᵀ, an eigenvector u with eigenvalue lambda outside the Ritz
    values has u·V = (lambda − T)⁻¹ Sᵀ (u·Q), so u·(its start rows) = K(lambda) (u·Q) with
    K = left diag(1/(lambda − theta)) right.

    Attributes:
        theta: [m] Ritz values.
        left: [q, m] the start rows' coordinates in the Ritz basis.
        right: [m, p] (S U)ᵀ: couplings of the Ritz vectors to the residual block.
    """

    theta: Tensor
    left: Tensor
    right: Tensor

    def at(self, lam: float) -> Tensor:
        """K(lambda) [q, p]."""
        return (self.left / (lam - self.theta)) @ self.right


@dataclass(slots=True)
class Certificate:
    """What one random start vector proves about both ends, through any number of thick restarts.

    The component γ of an eigenvector in the start vector is K₁(lambda)…K_c(lambda) times its component in the last
    residual block, which is at most 1: |γ| ≤ ‖K₁…K_c‖. For a uniformly random start P[|γ| < delta] ≤ delta·√(2d/π), so
    with delta = (1 − probability)·√(π/2d) an extremal eigenvalue lies where ‖K₁…K_c‖ ≥ delta. Outside the Ritz values
    the norm falls monotonically: bisection finds the place. Without restarts, for one vector, K is the reciprocal of
    the Lanczos polynomial. A fixed part in the start vector only makes |γ| < delta less likely.

    A Ritz value bounds lambda_min from above only; this is what bounds it from below.

    Attributes:
        dim: dimension of the operator.
        random_share: length of the random part of the unit start vector.
        transfers: one per finished cycle; that of the present one is given to `bounds`.
        final: the last cycle's transfer at the moment the Krylov space became invariant to rounding: nothing later adds
            to what the start proves.

    Source: van Dorsselaer, Hochstenbach & van der Vorst, Computing probabilistic bounds for extreme eigenvalues of
    symmetric matrices with the Lanczos method, SIAM J. Matrix Anal. Appl. 22 (2000), Lanczos polynomials; the restarted
    and the block form are ours.
    """

    dim: int
    random_share: float
    transfers: list[Transfer] = field(default_factory=list)
    final: Transfer | None = None

    def bounds(self, last: Transfer, probability: float) -> tuple[float, float]:
        """Numbers below and above the whole spectrum, each with the given probability (over the start vector)."""
        last = self.final or last
        delta = self.random_share * (1.0 - probability) * math.sqrt(math.pi / (2.0 * self.dim))
        chain = [*self.transfers, last]
        low, high = float(last.theta[0]), float(last.theta[-1])
        return self._beyond(chain, low, -1.0, high - low, delta), self._beyond(chain, high, 1.0, high - low, delta)

    def _beyond(self, chain: list[Transfer], end: float, sign: float, spread: float, delta: float) -> float:
        def possible(distance: float) -> bool:
            product = chain[0].at(end + sign * distance)
            for transfer in chain[1:]:
                product = product @ transfer.at(end + sign * distance)
            # on a Ritz value itself K is infinite
            return not bool(product.isfinite().all()) or float(torch.linalg.matrix_norm(product, 2)) >= delta

        inner, outer = 0.0, max(spread, abs(end), 1e-300) * 1e-9
        while possible(outer):
            inner, outer = outer, outer * 4.0
            if not math.isfinite(outer):
                return sign * math.inf
        for _ in range(STEPS):
            middle = (inner + outer) / 2.0
            if possible(middle):
                inner = middle
            else:
                outer = middle
        return end + sign * outer
