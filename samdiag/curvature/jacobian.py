"""The SAM Jacobian J = H+·A by the cheap route: a low-rank H+ and a few products at x."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samdiag.theory.hallucination import reduced_jacobian


def reduced_sam_jacobian(
    values: list[float],
    vectors: Tensor,
    bracket: Callable[[Tensor], Tensor],
    weight_decay: float,
) -> NDArray[np.float64]:
    """J on the span of V, L VᵀAV + wd·I [k, k], for H+ ≈ V L Vᵀ; exact when H+ annihilates everything else.

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
    return reduced_jacobian(scale, projected, weight_decay)
