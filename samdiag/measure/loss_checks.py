"""What is refused of a loss before anything is measured: not finite, not repeatable, moving the point, or a sum."""

from __future__ import annotations

import math

import torch

from samdiag.curvature.batches import halve
from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide, UsageError
from samdiag.measure.randomness import random_calls
from samdiag.quoting import listed
from samdiag.user_errors import is_out_of_memory


def check_loss(objective: Objective) -> None:
    """Evaluates loss and gradient twice: finite and equal, or the reason."""
    point = objective.flat.clone()
    first, g1 = objective.gradient()
    if not math.isfinite(first):
        raise CannotDecide(f"the loss is {first} at this checkpoint", "take an earlier checkpoint, or check the data")
    if not torch.isfinite(g1).all():
        raise CannotDecide("the gradient has NaN or infinite entries", "take an earlier checkpoint, or check the loss")
    second, g2 = objective.gradient()
    scale = float(torch.linalg.vector_norm(g1))
    change = float(torch.linalg.vector_norm(g1 - g2))
    tolerance = 1e3 * torch.finfo(objective.dtype).eps  # atomics on a GPU reorder sums; randomness changes far more
    if abs(first - second) > tolerance * max(abs(first), 1e-12) or change > tolerance * max(scale, 1e-6):
        raise CannotDecide(
            f"the loss is not deterministic: two evaluations on the same batches gave {first:.9g} and {second:.9g}"
            + _likely_cause(objective),
            "remove the randomness from the loss (nn.Dropout is already off; F.dropout needs training=self.training), "
            "and do not change the batch in place",
        )
    _check_still(objective, point)
    _check_mean(objective)


def _likely_cause(objective: Objective) -> str:
    names = random_calls(objective.loss_function, objective.model, objective.batches[0])
    return f"; it calls {listed(names, 3)}" if names else ""


def _check_still(objective: Objective, point: torch.Tensor) -> None:
    """Refuses a model that writes into its own parameters: the point would move while it is measured."""
    moved = (objective.flat != point).nonzero()
    if not len(moved):
        return
    first, end, names = int(moved[0, 0]), 0, {id(p): n for n, p in objective.model.named_parameters()}
    for p in objective.parameters:
        end += p.numel()
        if first < end:
            break
    raise CannotDecide(
        f"the forward pass writes into parameter {names.get(id(p), '?')}, so that the point moves while it is measured",
        "apply the change once before measuring and keep it out of forward (nn.Embedding: max_norm=None)",
    )


def _check_mean(objective: Objective) -> None:
    """Refuses a loss that is the sum over samples: the loss of a batch is then that of its halves together."""
    batch, count = objective.batches[0], objective.counts[0]
    halves = halve(batch, count)
    if halves is None:
        return
    with torch.no_grad():
        try:
            whole, *parts = (float(objective.loss_function(objective.model, b)) for b in (batch, *halves))
        except Exception as error:
            if not is_out_of_memory(error) and not isinstance(error, UsageError):
                raise
            return  # what cannot be evaluated in halves cannot be told
    if abs(whole) > 0 and abs(whole - sum(parts)) < 1e-3 * abs(whole) and min(abs(p) for p in parts) > 0.1 * abs(whole):
        raise UsageError(
            f"the loss is a sum over samples, not their mean: {whole:.4g} for {count} samples, "
            f"{parts[0]:.4g} and {parts[1]:.4g} for its halves",
            "return the mean of the batch, e.g. reduction='mean'",
        )
