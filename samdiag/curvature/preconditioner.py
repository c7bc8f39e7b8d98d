"""An approximate inverse of a shifted operator from the Krylov space of a cheaper one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.curvature.krylov_basis import KrylovBasis

NEAREST = 0.1  # of the shift: Ritz values nearer than this would blow up what the correction step projects out anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Preconditioner:
    """(C − shift)⁻¹ for the C that is a cheap operator's Ritz decomposition on its Krylov space, and 0 beside it.

    Attributes:
        basis: V of the finished run.
        theta: [m] Ritz values, in the units of the operator to be solved.
        vectors: [m, m] their coordinates in the basis, as columns.
    """

    basis: KrylovBasis
    theta: Tensor
    vectors: Tensor

    def solve(self, shift: float, rows: Tensor) -> Tensor:
        """(C − shift)⁻¹ applied to `rows` [p, dim]."""
        gaps = self.theta - shift
        least = NEAREST * abs(shift)
        gaps = torch.where(gaps.abs() < least, torch.where(gaps < 0, -least, least), gaps)
        inside = self.basis.coefficients(rows).to(device="cpu", dtype=torch.float64)
        solved = self.vectors @ ((self.vectors.T @ inside) / gaps[:, None])
        result: Tensor = self.basis.combine(solved + inside / shift).sub_(rows, alpha=1.0 / shift)
        return result

    def correction(self, shift: float, vector: Tensor, residual: Tensor) -> Tensor:
        """The direction t ⊥ vector that the residual of an approximate eigenpair asks for, both [dim].

        Source: Olsen, Jørgensen & Simons, Passing the one-billion limit in full configuration-interaction (FCI)
        calculations, Chem. Phys. Lett. 169 (1990), eq. 15: t = M⁻¹r − a M⁻¹x with t ⊥ x.
        """
        from_residual, from_vector = self.solve(shift, torch.stack([residual, vector]))
        share = torch.dot(vector, from_residual) / torch.dot(vector, from_vector)
        direction: Tensor = from_residual - share * from_vector
        return direction
