"""The small network of most rows, and what a file of it should hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Digits(nn.Module):
    """A classifier with a batch norm, so that there are buffers, and a tensor that is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(inputs)))
        return self.head(torch.tanh(self.second(hidden)))


def network(seed: int = 0) -> Digits:
    """A network of its own for a row."""
    torch.manual_seed(seed)
    return Digits()


def samples(num: int = 24) -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 6, generator=generator), torch.randint(3, (num,), generator=generator)


def kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict, so that further training does not change it."""
    return {name: value.detach().clone() for name, value in state.items()}


def loss_of(model: nn.Module) -> Callable[[], Tensor]:
    """A closure that an optimizer can call: gradients of the mean loss over all samples."""
    inputs, classes = samples()

    def closure() -> Tensor:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), classes)
        loss.backward()
        return loss

    return closure
