"""The loss and the batches as the training run had them: weight decay in the objective, BatchNorm's own batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from samdiag.curvature.batches import join, regroup
from samdiag.errors import UsageError

Loss = Callable[[Any, Any], Any]


def with_decay(loss: Loss, decay: float) -> Loss:
    """f + decay/2·|x|² over the trainable parameters: gradient, Hessian and SAM's ascent then see the decay.

    Source: theory, variants: weight decay as part of the objective shifts the spectrum by `decay`.
    """
    if decay == 0:
        return loss

    def decayed(model: Any, batch: Any) -> Any:
        squares = [p.square().sum() for p in model.parameters() if p.requires_grad]
        return loss(model, batch) + 0.5 * decay * sum(squares)

    return decayed


def as_in_training(batches: list[tuple[Any, int]], size: int | None) -> list[tuple[Any, int]]:
    """The batches cut or put together to the training batch (None: all samples), for statistics that depend on it.

    Raises:
        UsageError: batches that are smaller than the training batch cannot be put together.
    """
    found = []
    for group in [batches] if size is None else regroup(batches, size):
        whole = join(group)
        if whole is None:
            raise UsageError(
                f"--mode train needs batches as in training ({size or 'all'} samples), and these of {group[0][1]} "
                "cannot be put together",
                "let the data yield batches of the training size",
            )
        found.append(whole)
    usable = [(data, count) for data, count in found if count > 1]  # a single sample has no statistics of its own
    return usable or found
