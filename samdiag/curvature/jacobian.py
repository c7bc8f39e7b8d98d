"""Eigenvalues of the SAM Jacobian J = H+·A by the cheap route: a low-rank H+ and a few products at x."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samdiag.theory.hallucination import reduced_jacobian_eigenvalues


def sam_jacobian_eigenvalues(
    values: list[float],
    vectors: Tensor,
    bracket: Callable[[Tensor], Tensor],
    weight_decay: float,
) -> list[complex]:
    """eig(L VᵀAV) (+ wd), for H+ ≈ V L Vᵀ; exact when V spans everything that H+ does not annihilate.

    Args:
        values: [k] eigenvalues of the Hessian at x+, both ends.
        vectors: [k, num_params] their unit vectors.
        bracket: v → A v at x (`measure.ascent`), one Hessian product each.
        weight_decay: part of the update and so of J.

    Source: theory B2, B3.
    """
    wide = vectors.double()
    images = torch.stack([bracket(v) for v in wide])
    projected = (wide @ images.T).cpu().numpy()  # [k, k]: v_i · A v_j
    scale = torch.tensor(values, dtype=torch.float64).numpy()
    return reduced_jacobian_eigenvalues(scale, projected, weight_decay)
