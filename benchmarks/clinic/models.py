"""The networks and the data of the families."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from benchmarks.data import mnist
from benchmarks.networks import GPT
from samdiag.gallery.digits import dataset, mlp
from samdiag.gallery.toy import ToyNetwork
from samdiag.gallery.toy import dataset as toy_dataset

SADDLE_DIM = 200
SADDLE_BATCH = 64
SADDLE_SAMPLES = 2048  # as many as samdiag analyses, so that it sees all of them
WEAKEST, STEEPEST = 0.7, 2.0  # |lam| of the negative eigenvalues lie between: both ends are always there
# |g_b| is about 1 by construction, so rho is rho_eff: escaping at 15 and 60 % of SGD's rate, held by a factor 1.5 to 4
SADDLE_RHO = (0.2, 0.425, 2.15, 3.5, 5.7)
SEQUENCES = 256  # of the transformer's training set
CONTEXT = 16  # characters of one sequence


def mnist_tanh(_seed: int) -> nn.Module:
    """784-32-10 with tanh, as in PARK's figure 4."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.Tanh(), nn.Linear(32, 10))


@cache
def mnist_images(seed: int, count: int) -> TensorDataset:
    """`count` MNIST digits that no other seed has: [count, 1, 28, 28]."""
    inputs, targets = mnist()
    rows = slice(seed * count, (seed + 1) * count)
    return TensorDataset(inputs[rows].clone(), targets[rows].clone())


def mnist_thousand(seed: int) -> TensorDataset:
    """1000 digits of this seed."""
    return mnist_images(seed, 1000)


def digits_mlp(_seed: int, activation: str) -> nn.Module:
    """64-32-10 of samdiag's gallery."""
    return mlp(hidden=32, activation=activation)


def digits(_seed: int) -> TensorDataset:
    """All 1797 of them."""
    return dataset()


def toy(_seed: int) -> nn.Module:
    """Two weights from N(0, 0.1²)."""
    model = ToyNetwork()
    nn.init.normal_(model.w, std=0.1)
    return model


def toy_data(_seed: int) -> TensorDataset:
    """Its 8 samples."""
    return toy_dataset()


class Saddle(nn.Module):
    """½ Σ lam x² + xi·x for every sample xi: [batch, 200] → [batch]; x starts in the saddle at 0."""

    def __init__(self, eigenvalues: Tensor) -> None:
        super().__init__()
        self.register_buffer("eigenvalues", eigenvalues)
        self.x = nn.Parameter(torch.zeros_like(eigenvalues))

    def forward(self, noise: Tensor) -> Tensor:
        return 0.5 * (self.eigenvalues * self.x.square()).sum() + noise @ self.x


def saddle(seed: int) -> Saddle:
    """A saddle with 2 to 50 negative eigenvalues, in float64."""
    generator = torch.Generator().manual_seed(seed)
    index = int(torch.randint(2, 51, (1,), generator=generator))
    share = torch.rand(SADDLE_DIM, generator=generator, dtype=torch.float64)
    negative = -(WEAKEST + (STEEPEST - WEAKEST) * share[:index])
    negative[0], negative[1] = -STEEPEST, -WEAKEST
    return Saddle(torch.cat([negative, 0.05 + 2.45 * share[index:]]))  # positive: 0.05 to 2.5


@cache
def saddle_data(seed: int) -> TensorDataset:
    """Its gradient noise, mean 0 exactly; the mean of 64 samples has a norm of about 1."""
    generator = torch.Generator().manual_seed(1000 + seed)
    noise = torch.randn(SADDLE_SAMPLES, SADDLE_DIM, generator=generator, dtype=torch.float64)
    noise *= (0.5 + 1.5 * torch.rand(SADDLE_DIM, generator=generator, dtype=torch.float64)).sqrt()
    noise -= noise.mean(dim=0)
    noise *= (SADDLE_BATCH / noise.square().sum(dim=1).mean()).sqrt()
    return TensorDataset(noise, torch.zeros(SADDLE_SAMPLES, dtype=torch.float64))


def mean_output(outputs: Tensor, _targets: Tensor) -> Tensor:
    """The network's outputs are its losses."""
    return outputs.mean()


def _convolutions(*, norm: bool) -> nn.Sequential:
    """[batch, 1, 28, 28] → [batch, 10] logits; the picture is halved first, which makes it four times cheaper."""

    def block(before: int, after: int) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Conv2d(before, after, kernel_size=3, stride=2)]
        return [*layers, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]

    return nn.Sequential(nn.AvgPool2d(2), *block(1, 8), *block(8, 16), nn.Flatten(), nn.Linear(16 * 4, 10))


def conv_bn(_seed: int) -> nn.Module:
    """With BatchNorm: 2000 parameters."""
    return _convolutions(norm=True)


def conv(_seed: int) -> nn.Module:
    """Without."""
    return _convolutions(norm=False)


@cache
def _help_characters() -> Tensor:
    """The help topics that come with Python as character numbers, int64 [length]."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    numbers = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([numbers[character] for character in text])


def help_text(seed: int) -> TensorDataset:
    """256 sequences of 16 characters and the characters that follow each, at places that depend on the seed."""
    text = _help_characters()
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - CONTEXT, (SEQUENCES,), generator=generator)
    rows = torch.stack([text[i : i + CONTEXT + 1] for i in starts])
    return TensorDataset(rows[:, :-1].clone(), rows[:, 1:].clone())


def transformer(_seed: int) -> nn.Module:
    """Two layers of width 32 with two heads."""
    return GPT(vocabulary=int(_help_characters().max()) + 1, context=CONTEXT, width=32, depth=2, heads=2)


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy over all characters."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
