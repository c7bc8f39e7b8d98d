"""Trained networks on real data as samdiag problems: `--problem benchmarks/problems.py:mnist`, `:mnist_mlp`, `:rnet`.

Each problem has a `*_checkpoint()` beside it that returns the path of its weights, trained or fetched on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from data import faces, fetch, made
from data import mnist as mnist_digits
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from samdiag.gallery.training import Recipe, evaluate, one_thread, train
from samdiag.types import Problem

MNIST_SAMPLES = 2048  # of 60000: enough that the sampling errors are small against the values
# rho and momentum as the SAM paper uses them; two epochs of 60000 / 128 steps
MNIST_RECIPE = Recipe(steps=936, lr=0.05, rho=0.05, momentum=0.9, batch_size=128)
MLP_SAMPLES = 1000  # the training set of the fully connected network is this part of MNIST
# full batch and a radius as for adaptive SAM: at the small lr it does not learn in 2600 steps, at the large one it does
MLP_STUCK = Recipe(steps=600, lr=0.2, rho=2.0)
MLP_SLOW = Recipe(steps=600, lr=0.5, rho=2.0)


class LeNet(nn.Module):
    """Two strided convolutions with BatchNorm and one linear layer: [batch, 1, 28, 28] → [batch, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=5, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=5, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(16 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


class RNet(nn.Module):
    """The second stage of the MTCNN face detector: [batch, 3, 24, 24] → [batch, 2] logits (no face, face).

    Its box regression `dense5_2` is kept, so that every published weight has its place; the loss does not use it.

    Source: Zhang et al., Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, figure 2;
        names and order of layers as in the published weights (channels last before the dense layer).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, kernel_size=3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, kernel_size=3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, kernel_size=2), nn.PReLU(64)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool(self.prelu1(self.conv1(images)))
        hidden = self.pool(self.prelu2(self.conv2(hidden)))
        hidden = self.prelu3(self.conv3(hidden)).permute(0, 3, 2, 1).flatten(1)
        logits: Tensor = self.dense5_1(self.prelu4(self.dense4(hidden)))
        return logits


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean cross-entropy of `model` on `batch`."""
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)


def mnist() -> Problem:
    """LeNet on the first 2048 of MNIST's 60000 training digits, in batches as in training, BatchNorm in eval mode."""
    inputs, targets = mnist_digits()
    batches = _cut(inputs[:MNIST_SAMPLES], targets[:MNIST_SAMPLES], 128)
    return Problem(
        model=LeNet().eval(), loss=cross_entropy, batches=batches, population=len(targets), loss_lower_bound=0.0
    )


def mnist_checkpoint() -> Path:
    """LeNet trained with SAM for two epochs of MNIST; under a minute on two cores."""

    def make(path: Path) -> None:
        model = _seeded_lenet()
        _finish(model.train(), TensorDataset(*mnist_digits()), MNIST_RECIPE)
        _save(model.state_dict(), path)

    return made("mnist-lenet.safetensors", make)


def mnist_mlp() -> Problem:
    """A 784-32-10 tanh network on the 1000 digits that it was trained on in full batches."""
    inputs, targets = _mlp_data()
    batches = _cut(inputs, targets, 125)
    return Problem(
        model=_mlp(),
        loss=cross_entropy,
        batches=batches,
        population=MLP_SAMPLES,
        loss_lower_bound=0.0,
        batch_size_is_training=False,  # cut only to save memory
    )


def mnist_mlp_stuck_checkpoint() -> Path:
    """That network after 600 steps of plain SAM at rho = 2 and lr = 0.2."""
    return made("mnist-mlp-stuck.safetensors", lambda path: _train_mlp(MLP_STUCK, path))


def mnist_mlp_slow_checkpoint() -> Path:
    """That network after 600 steps of plain SAM at rho = 2 and lr = 0.5."""
    return made("mnist-mlp-slow.safetensors", lambda path: _train_mlp(MLP_SLOW, path))


def mnist_mlp_next_checkpoint() -> Path:
    """The same run one step later: on the other wall of the ravine that it bounces in."""
    return made("mnist-mlp-next.safetensors", lambda path: _train_mlp(replace(MLP_SLOW, steps=601), path))


def mnist_mlp_future(checkpoint: Path, recipe: Recipe) -> float:
    """The loss after training on from `checkpoint` with `recipe`: what a verdict on it must agree with."""
    model, data = _mlp(), TensorDataset(*_mlp_data())
    model.load_state_dict(load_file(checkpoint))
    with one_thread():
        _finish(model, data, recipe)
    return evaluate(model, data)[0]


def rnet() -> Problem:
    """R-Net on 200 crops of LFW, faces and background mixed in 8 batches.

    They are not its training set, so there is no population, and the batches do not say how it was trained.
    """
    images, targets = faces()
    small = functional.interpolate(images, size=(24, 24), mode="bilinear", align_corners=False, antialias=True)
    inputs = (255 * small - 127.5) / 128  # the scale that R-Net was trained on
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    batches = _cut(inputs.expand(-1, 3, -1, -1)[order].contiguous(), targets[order], 25)
    return Problem(
        model=RNet().eval(), loss=cross_entropy, batches=batches, loss_lower_bound=0.0, batch_size_is_training=False
    )


def rnet_checkpoint() -> Path:
    """The published weights of R-Net as a safetensors file; they come in the container of torch before 1.6."""

    def make(path: Path) -> None:
        _save(torch.load(fetch("rnet.pt"), weights_only=True), path)

    return made("rnet.safetensors", make)


def _seeded_lenet() -> LeNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LeNet()


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.Tanh(), nn.Linear(32, 10))


def _train_mlp(recipe: Recipe, path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _mlp()
    with one_thread():
        _finish(model, TensorDataset(*_mlp_data()), recipe)
    _save(model.state_dict(), path)


def _finish(model: nn.Module, data: TensorDataset, recipe: Recipe) -> None:
    for _ in train(model, data, recipe):
        pass


def _mlp_data() -> tuple[Tensor, Tensor]:
    inputs, targets = mnist_digits()
    return inputs[:MLP_SAMPLES], targets[:MLP_SAMPLES]


def _cut(inputs: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return [(inputs[start : start + size], targets[start : start + size]) for start in range(0, len(targets), size)]


def _save(weights: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
