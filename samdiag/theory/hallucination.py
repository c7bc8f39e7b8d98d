"""Hallucinated minimizers: the signature, and the Jacobian that tells an attractor from a mere point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samdiag.theory.edge import is_stable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNATURE_RATIO = (
    0.1  # |g+| < 0.1|g| held in 207 of 216 spontaneous cases on tanh networks: a choice made on toys (theory B6)
)


def is_attracting(eigenvalues: list[complex], zero: float, lr: float | None, momentum: float) -> tuple[bool, int]:
    """Whether x ↦ ∇f(x + e(x)) attracts, and the number of its zero modes.

    Zero modes (modulus ≤ `zero`) come from the manifold of minimisers through x+; they are counted, not called
    unstable.

    Source: PARK Sec. 3; theory B3.
    """
    live = [value for value in eigenvalues if abs(value) > zero]
    return bool(live) and all(is_stable(v, lr, momentum) for v in live), len(eigenvalues) - len(live)


def reduced_jacobian_eigenvalues(
    values: NDArray[np.float64], projected_bracket: NDArray[np.float64], weight_decay: float = 0.0
) -> list[complex]:
    """Eigenvalues of J = H+·A on the span where H+ ≈ V L Vᵀ: eig(L VᵀAV) (+ wd), A the bracket of theory B2.

    Args:
        values: [k] eigenvalues L of the Hessian at x+.
        projected_bracket: [k, k] VᵀAV, A at x.
        weight_decay: added to every eigenvalue.

    Source: theory B3 (checked: exact when H+ has rank k).
    """
    import numpy as np

    return [complex(v) + weight_decay for v in np.linalg.eigvals(values[:, None] * projected_bracket)]
