"""The toy network f = mean (w2 φ(w1 x) − y)² of two weights, and a data set for it.

KIM's data are not given. Here x are 8 equally spaced numbers in [−2, 2] and y = φ(x), so that w1 = w2 = 1 fits them
exactly. How many runs end in the saddle at the origin does not depend on that choice (docs/theory.md E): it scales the
curvature ±2 E[xy], and with it the speed, and the trapped region is the same for every curvature.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from samdiag.errors import UsageError
from samdiag.types import Problem

NUM_SAMPLES = 8
LARGEST_INPUT = 2.0  # where tanh has begun to saturate, so that the network is not linear
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "square": torch.square}


class ToyNetwork(nn.Module):
    """x ↦ w2 φ(w1 x) with two numbers as weights, in float64.

    Args:
        activation: "tanh", or "square" for φ(z) = z².
    """

    def __init__(self, activation: str = "tanh") -> None:
        super().__init__()
        self.activation = _known(activation)
        self.w = nn.Parameter(torch.full((2,), 0.1, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of the shape of `inputs`."""
        return self.w[1] * self.activation(self.w[0] * inputs)


def dataset(activation: str = "tanh") -> TensorDataset:
    """Inputs and targets y = φ(x), float64 [8] each."""
    inputs = torch.linspace(-LARGEST_INPUT, LARGEST_INPUT, NUM_SAMPLES, dtype=torch.float64)
    return TensorDataset(inputs, _known(activation)(inputs))


def toy_network(activation: str = "tanh") -> Problem:
    """The toy network on its full batch as a problem; its loss never goes below 0."""
    inputs, targets = dataset(activation).tensors
    return Problem(
        model=ToyNetwork(activation),
        loss=_squared_error,
        batches=[(inputs, targets)],
        population=len(inputs),
        loss_lower_bound=0.0,
    )


def _squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return functional.mse_loss(model(inputs), targets)


def _known(activation: str) -> Callable[[Tensor], Tensor]:
    if activation not in ACTIVATIONS:
        what = f"toy-network has no activation {str(activation)[:40]!r}"
        raise UsageError(what, f"choose {' or '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation]
