"""The 2-2-1 tanh network that SAM hallucinates on: `tanh-network` of the catalog, with its teacher and its data.

60 standard normal inputs, the outputs of a teacher of the same shape, and the weights of a hallucinated minimizer for
rho = |x_h − teacher| = 2.58: there x+ is the teacher itself, so that f(x+) = 0 and g+ = 0 while f = 0.0036 and
|g| = 0.028. It is a minimum of f on the sphere about the teacher, near the teacher's mirror image under
tanh(−z) = −tanh z. All of it lies in tanh_network.safetensors beside this file.

Source: docs/theory.md B4 and E.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from samdiag.types import Problem

HIDDEN = 2


class TanhNetwork(nn.Module):
    """x ↦ W2 tanh(W1 x + b1) + b2 from two inputs to one output, in float64; it returns its own loss where asked to.

    Args:
        weights: [9], W1 by rows, b1, W2, b2.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2, HIDDEN).double(), nn.Linear(HIDDEN, 1).double()
        with torch.no_grad():
            nn.utils.vector_to_parameters(weights.to(torch.float64, copy=True), self.parameters())  # which makes views

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Outputs [n, 1]; with `targets` [n, 1], the mean of half the squared error."""
        outputs: Tensor = self.out(torch.tanh(self.hidden(inputs)))
        return outputs if targets is None else (outputs - targets).square().sum(dim=1).mean() / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What tanh_network.safetensors holds.

    Attributes:
        inputs: [60, 2].
        targets: [60, 1].
        teacher: [9], the weights that made the targets.
        hallucinated: [9], x_h.
    """

    inputs: Tensor
    targets: Tensor
    teacher: Tensor
    hallucinated: Tensor

    @property
    def rho(self) -> float:
        """The radius for which x_h is hallucinated: its distance from the teacher."""
        return float(torch.linalg.vector_norm(self.hallucinated - self.teacher))


@cache
def shipped() -> Shipped:
    """The contents of the file; not to be changed in place."""
    content = (resources.files("samdiag.gallery") / "tanh_network.safetensors").read_bytes()
    return Shipped(**safetensors.torch.load(content))


def dataset() -> TensorDataset:
    """Inputs [60, 2] and targets [60, 1], float64."""
    return TensorDataset(shipped().inputs.clone(), shipped().targets.clone())


def network() -> TanhNetwork:
    """The network at its hallucinated minimizer for rho = 2.58."""
    return TanhNetwork(shipped().hallucinated)


def as_problem(model: nn.Module) -> Problem:
    """`model`, which returns its own loss, on the full batch of the shipped data."""
    inputs, targets = dataset().tensors
    batches = [(inputs, targets)]
    return Problem(model=model, loss=own_loss, batches=batches, population=len(inputs), loss_lower_bound=0.0)


def own_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean of half the squared error, as the model computes it."""
    loss: Tensor = model(*batch)
    return loss
