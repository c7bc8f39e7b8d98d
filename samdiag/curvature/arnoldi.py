"""Arnoldi iteration for the outer eigenvalues of an operator that is not symmetric, such as the SAM Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BREAKDOWN = 1e-12  # of the operator's size: the Krylov space is invariant


@dataclass(frozen=True, slots=True, kw_only=True)
class RitzValues:
    """Eigenvalues of the projection, with residuals.

    Attributes:
        values: complex, smallest real part first.
        residuals: ‖Jy − theta y‖ of each unit Ritz vector y: the backward error; an operator far from normal may move
            its eigenvalues by more.
        exact: the Krylov space was invariant, so that every value is an eigenvalue.
        steps: products spent.
    """

    values: list[complex]
    residuals: list[float]
    exact: bool
    steps: int


def arnoldi(
    product: Callable[[Tensor], Tensor], dim: int, *, max_products: int, tol: float, generator: torch.Generator
) -> RitzValues:
    """Ritz values of `product` [dim] → [dim] from a random start, with full reorthogonalisation in float64.

    Stops when the value of smallest real part and that of largest modulus, the two that can make an iteration unstable,
    have residuals below `tol` times the largest modulus.

    Source: Saad, Numerical Methods for Large Eigenvalue Problems, Sec. 6.2; theory B3.
    """
    v = torch.randn(dim, generator=generator, dtype=torch.float64)
    limit = min(max_products, dim)
    first = product(v / torch.linalg.vector_norm(v))  # also says where the vectors live
    basis = [(v / torch.linalg.vector_norm(v)).to(first.device)]
    h = np.zeros((limit + 1, limit), dtype=np.float64)
    for k in range(limit):
        w = (first if k == 0 else product(basis[k])).double()
        size = float(torch.linalg.vector_norm(w))
        stacked = torch.stack(basis)
        for _ in range(2):  # once more is enough
            coefficients = stacked @ w
            w = w - coefficients @ stacked
            h[: k + 1, k] += coefficients.cpu().numpy()
        rest = float(torch.linalg.vector_norm(w))
        scale = max(size, float(np.abs(h[: k + 1, : k + 1]).max()), 1e-300)
        if rest <= BREAKDOWN * scale or k + 1 == dim:
            return _ritz(h[: k + 1, : k + 1], 0.0, exact=k + 1 == dim, steps=k + 1)
        h[k + 1, k] = rest
        basis.append(w / rest)
        if k % 5 == 4 or k + 1 == limit:
            found = _ritz(h[: k + 1, : k + 1], rest, exact=False, steps=k + 1)
            if _converged(found, tol):
                return found
    return found


def _ritz(h: np.ndarray[tuple[int, int], np.dtype[np.float64]], rest: float, *, exact: bool, steps: int) -> RitzValues:
    values, vectors = np.linalg.eig(h)
    residuals = rest * np.abs(vectors[-1]) / np.linalg.norm(vectors, axis=0)
    order = np.argsort(values.real)
    return RitzValues(
        values=[complex(values[i]) for i in order],
        residuals=[float(residuals[i]) for i in order],
        exact=exact,
        steps=steps,
    )


def _converged(found: RitzValues, tol: float) -> bool:
    largest = max(range(len(found.values)), key=lambda i: abs(found.values[i]))
    limit = tol * abs(found.values[largest])
    return found.residuals[0] <= limit and found.residuals[largest] <= limit
