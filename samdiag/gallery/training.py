"""SAM as its papers define it, on a data set small enough to be held in memory: a reference, not a fast trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of one run. rho = 0 is plain gradient descent with the same steps.

    Attributes:
        steps: number of updates.
        lr: learning rate eta.
        rho: radius of the ascent step.
        momentum: heavy-ball momentum gamma, as in torch.optim.SGD without dampening.
        variant: "sam" (e = rho·g/|g|) or "usam" (e = rho·g).
        batch_size: samples per step, the same for ascent and descent; None: all of them.
        seed: of the order in which mini-batches are drawn.
    """

    steps: int
    lr: float
    rho: float = 0.0
    momentum: float = 0.0
    variant: Literal["sam", "usam"] = "sam"
    batch_size: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was seen on the way to one update: both numbers belong to the batch and the point before it.

    Attributes:
        step: 1, 2, …
        loss: mean loss of the batch.
        grad_norm: |g| of the batch.
    """

    step: int
    loss: float
    grad_norm: float


def train(
    model: nn.Module, data: TensorDataset, recipe: Recipe, criterion: Criterion = functional.cross_entropy
) -> Iterator[Record]:
    """One record per update; `model` is trained in place while the records are drawn, `recipe.steps` in all.

    v ← gamma·v + ∇f(x + e(x)), x ← x − eta·v, from v = 0. The point x is restored from a copy, so that no rounding
    error of x + e − e accumulates. Buffers (the running statistics of BatchNorm) see the first pass of a step only.

    Args:
        model: takes inputs [batch, …] and returns what `criterion` takes.
        data: inputs and targets with the sample as first dimension.
        recipe: the settings.
        criterion: (outputs, targets) → mean loss.

    Source: Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, algorithm 1; "usam":
        Andriushchenko & Flammarion, Towards Understanding Sharpness-Aware Minimization.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    velocity = [torch.zeros_like(parameter) for parameter in parameters]
    batches = _batches(data, recipe)
    for step in range(1, recipe.steps + 1):
        inputs, targets = next(batches)
        loss, gradient = _gradient(model, parameters, criterion, inputs, targets)
        norm = _norm(gradient)
        if recipe.rho > 0:
            gradient = _shifted_gradient(
                model, parameters, criterion, (inputs, targets), gradient, _scale(norm, recipe)
            )
        _descend(parameters, velocity, gradient, recipe)
        yield Record(step=step, loss=loss, grad_norm=norm)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread inside: faster on networks this small, and the same to the bit each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def evaluate(
    model: nn.Module, data: TensorDataset, criterion: Criterion = functional.cross_entropy
) -> tuple[float, float]:
    """(mean loss, share of samples whose largest output is the target) over all of `data`."""
    inputs, targets = data.tensors
    with torch.no_grad():
        outputs = model(inputs)
        right = (outputs.argmax(dim=-1) == targets).to(torch.float64).mean()
        return float(criterion(outputs, targets)), float(right)


def _batches(data: TensorDataset, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Mini-batches without replacement, drawn anew each epoch; a ragged last batch is dropped. Never ends."""
    inputs, targets = data.tensors
    count = len(inputs)
    if recipe.batch_size is None or recipe.batch_size >= count:
        while True:
            yield inputs, targets
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - recipe.batch_size + 1, recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            yield inputs[chosen], targets[chosen]


def _gradient(
    model: nn.Module, parameters: list[nn.Parameter], criterion: Criterion, inputs: Tensor, targets: Tensor
) -> tuple[float, list[Tensor]]:
    loss = criterion(model(inputs), targets)
    return float(loss.detach()), list(torch.autograd.grad(loss, parameters))


def _norm(gradient: list[Tensor]) -> float:
    """|g| over all parameters, summed in float64."""
    return float(torch.stack([part.to(torch.float64).square().sum() for part in gradient]).sum().sqrt())


def _scale(norm: float, recipe: Recipe) -> float:
    """What e(x) is of g; 0 where g = 0 and "sam" has no direction."""
    if recipe.variant == "usam":
        return recipe.rho
    return recipe.rho / norm if norm > 0 else 0.0


def _shifted_gradient(
    model: nn.Module,
    parameters: list[nn.Parameter],
    criterion: Criterion,
    batch: tuple[Tensor, Tensor],
    gradient: list[Tensor],
    scale: float,
) -> list[Tensor]:
    """g+ = ∇f(x + scale·g); parameters and buffers are as before, to the bit, also when this fails."""
    moved: list[Tensor] = [*parameters, *model.buffers()]
    kept = [tensor.detach().clone() for tensor in moved]
    try:
        with torch.no_grad():
            for parameter, part in zip(parameters, gradient, strict=True):
                parameter.add_(part, alpha=scale)
        return _gradient(model, parameters, criterion, *batch)[1]
    finally:
        with torch.no_grad():
            for tensor, old in zip(moved, kept, strict=True):
                tensor.copy_(old)


@torch.no_grad()
def _descend(parameters: list[nn.Parameter], velocity: list[Tensor], gradient: list[Tensor], recipe: Recipe) -> None:
    for parameter, speed, part in zip(parameters, velocity, gradient, strict=True):
        speed.mul_(recipe.momentum).add_(part)
        parameter.sub_(speed, alpha=recipe.lr)
