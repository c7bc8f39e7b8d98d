"""What the benchmarks measure on: trained networks with their batches, the same for every tool.

Data and weights are fetched or trained on first use and cached, see data.py. The GPU sizes have random weights and
random data: they are for speed only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from data import cifar10, made
from networks import GPT, MeanCrossEntropy, Recurrent, ResNet, VisionTransformer, gpt2, mlp, resnet50, vit_b16
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from samdiag.gallery.training import Recipe, train

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network at a point, with the data it is measured on.

    Attributes:
        name: what it is called in the tables.
        what: one line for the reports.
        model: in eval mode, float32.
        criterion: (outputs, targets) → mean loss.
        batches: the same cuts for every tool.
        trained: whether a reference solution makes sense.
        checkpoint: the cached weights; None for random ones.
    """

    name: str
    what: str
    model: nn.Module
    batches: list[Batch]
    trained: bool
    checkpoint: Path | None = None
    criterion: nn.Module = field(default_factory=MeanCrossEntropy)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of `model` on `batch`, as samdiag asks for it."""
        value: Tensor = self.criterion(model(batch[0]), batch[1])
        return value

    @property
    def num_samples(self) -> int:
        return sum(len(inputs) for inputs, _ in self.batches)

    @property
    def num_params(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def digest(self) -> str:
        """Of weights and data together: a reference solution belongs to one digest."""
        sha = hashlib.sha256()
        for tensor in (*self.model.state_dict().values(), *(t for batch in self.batches for t in batch)):
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()[:16]


def digits_mlp(*, quick: bool = False) -> Case:
    """64-256-256-10 on scikit-learn's 1797 digits, trained with SAM; batches of 256, so the last has 5 samples."""
    inputs, targets = digits()
    if quick:
        inputs, targets = inputs[:75], targets[:75]
    size, width = (32, 16) if quick else (256, 256)
    recipe = Recipe(steps=30 if quick else 140, lr=0.1, rho=0.05, momentum=0.9, batch_size=size)  # 140: 20 epochs
    with seeded():
        model = mlp(64, width, width, 10)
    data = TensorDataset(inputs, targets)
    path = None
    if quick:
        trained(model, data, recipe)
    else:
        path = made("bench-digits-mlp.safetensors", lambda path: _save(trained(model, data, recipe), path))
        model.load_state_dict(load_file(path))
    what = f"MLP 64-{width}-{width}-10 on {len(targets)} digits 8×8, trained with SAM"
    batches = cut(inputs, targets, size)
    return Case(name="digits-mlp", what=what, model=model.eval(), batches=batches, trained=True, checkpoint=path)


def resnet(*, quick: bool = False) -> Case:
    """A BatchNorm ResNet-8 on the first 1000 images of CIFAR-10, trained with SAM on 10000; random data if quick."""
    with seeded():
        widths = (4, 4, 8) if quick else (16, 32, 64)
        model = ResNet(widths, (1, 1, 1), classes=10, bottleneck=False, large_images=False)
        noise = torch.randn(30, 3, 8, 8), torch.randint(10, (30,))
    path = None
    if quick:
        inputs, targets = noise
        trained(model, TensorDataset(*noise), Recipe(steps=5, lr=0.05, rho=0.05, batch_size=16))
    else:
        inputs, targets = cifar10()
        recipe = Recipe(steps=390, lr=0.1, rho=0.05, momentum=0.9, batch_size=128)  # 390: 5 epochs of 10000
        data = TensorDataset(inputs, targets)
        path = made("bench-resnet.safetensors", lambda path: _save(trained(model, data, recipe), path))
        model.load_state_dict(load_file(path))
        inputs, targets = inputs[:1000], targets[:1000]
    what = f"ResNet-8 with BatchNorm, {'random images' if quick else 'CIFAR-10'}, {len(targets)} samples, eval mode"
    batches = cut(inputs, targets, 16 if quick else 128)
    return Case(name="resnet", what=what, model=model.eval(), batches=batches, trained=True, checkpoint=path)


def gpt(*, quick: bool = False) -> Case:
    """A character-level GPT on the help texts that come with Python, trained with AdamW."""
    text = python_help()
    width, depth, heads, context = (8, 1, 2, 8) if quick else (128, 3, 4, 64)
    with seeded():
        model = GPT(vocabulary=int(text.max()) + 1, context=context, width=width, depth=depth, heads=heads)
    path = None
    if quick:
        _train_language(model, text, context, steps=5)
    else:

        def make(path: Path) -> None:
            _train_language(model, text, context, steps=600)
            _save(model, path)

        path = made("bench-gpt.safetensors", make)
        model.load_state_dict(load_file(path))
    count = 10 if quick else 100
    starts = torch.arange(count) * (len(text) // (count + 1))  # evenly over the text
    sequences = torch.stack([text[i : i + context + 1] for i in starts])
    batches = cut(sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous(), 4 if quick else 32)
    what = f"GPT, {depth} layers of width {width}, characters of Python's help, {count} sequences of {context}"
    return Case(name="gpt", what=what, model=model.eval(), batches=batches, trained=True, checkpoint=path)


def lstm(*, quick: bool = False) -> Case:
    """An LSTM over the rows of scikit-learn's digits, untrained."""
    inputs, targets = digits()
    count, width = (40, 4) if quick else (512, 64)
    with seeded():
        model = Recurrent(inputs=8, width=width, classes=10)
    batches = cut(inputs[:count].view(-1, 8, 8), targets[:count], 16 if quick else 256)
    what = f"LSTM of width {width} on {count} digits, random weights"
    return Case(name="lstm", what=what, model=model.eval(), batches=batches, trained=False)


def transformer(*, quick: bool = False) -> Case:
    """A small vision transformer with random weights on random images."""
    count, width, depth = (6, 8, 1) if quick else (256, 64, 2)
    with seeded():
        model = VisionTransformer(side=32, patch=4, width=width, depth=depth, heads=2, classes=10)
        inputs, targets = torch.randn(count, 3, 32, 32), torch.randint(10, (count,))
    batches = cut(inputs, targets, 4 if quick else 128)
    what = f"vision transformer, {depth} layers of width {width}, random weights, {count} random images"
    return Case(name="transformer", what=what, model=model.eval(), batches=batches, trained=False)


def wide_mlp(width: int, count: int, size: int) -> Case:
    """64-width-width-10 on the first `count` digits in batches of `size`, after 40 steps of SAM on them."""
    inputs, targets = (t[:count] for t in digits())
    with seeded():
        model = mlp(64, width, width, 10)
    recipe = Recipe(steps=40, lr=0.1, rho=0.05, momentum=0.9, batch_size=min(size, 128))
    trained(model, TensorDataset(inputs, targets), recipe)
    what = f"MLP 64-{width}-{width}-10 on {count} digits"
    return Case(name="mlp", what=what, model=model.eval(), batches=cut(inputs, targets, size), trained=False)


def large(name: str, *, quick: bool = False) -> Case:
    """ResNet-50, ViT-B/16 or GPT-2 with random weights on random data; tiny layers of the same code if quick."""
    with seeded():
        if name == "gpt2":
            vocabulary, length, count, size = (50, 8, 6, 4) if quick else (50257, 1024, 8, 4)
            model: nn.Module = (
                GPT(vocabulary=vocabulary, context=length, width=8, depth=1, heads=2) if quick else gpt2()
            )
            inputs, targets = torch.randint(vocabulary, (2, count, length)).unbind()
        else:
            side, classes, count, size = (16, 10, 6, 4) if quick else (224, 1000, 128, 32)
            if name == "vit-b16":
                model = (
                    VisionTransformer(side=16, patch=8, width=8, depth=1, heads=2, classes=10) if quick else vit_b16()
                )
            else:
                model = ResNet((4, 8), (1, 1), classes=10, bottleneck=True, large_images=True) if quick else resnet50()
            inputs, targets = torch.randn(count, 3, side, side), torch.randint(classes, (count,))
    what = f"{name}{' in miniature' if quick else ''}, random weights, {count} random samples"
    return Case(name=name, what=what, model=model.eval(), batches=cut(inputs, targets, size), trained=False)


PROBLEMS: dict[str, Callable[..., Case]] = {"digits-mlp": digits_mlp, "resnet": resnet, "gpt": gpt}
SIZES = ("resnet50", "vit-b16", "gpt2")


def cut(inputs: Tensor, targets: Tensor, size: int) -> list[Batch]:
    """Batches of `size` samples; the last one holds the rest."""
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def digits() -> Batch:
    """scikit-learn's digits: inputs float32 [1797, 64] in [0, 1]; targets int64 [1797]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target)


def python_help() -> Tensor:
    """The help topics that come with Python as character numbers, int64 [length]."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    numbers = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([numbers[character] for character in text])


@contextmanager
def seeded() -> Iterator[None]:
    """torch's generator starts at 0 inside, and goes on afterwards as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def trained(model: nn.Module, data: TensorDataset, recipe: Recipe) -> nn.Module:
    """`model` after the run that `recipe` describes."""
    model.train()
    for _ in train(model, data, recipe):
        pass
    return model


def _train_language(model: GPT, text: Tensor, context: int, *, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = MeanCrossEntropy()
    for sequences in _sequences(text, context, steps):
        optimizer.zero_grad()
        criterion(model(sequences[:, :-1]), sequences[:, 1:]).backward()
        optimizer.step()


def _sequences(text: Tensor, context: int, steps: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(len(text) - context, (32,), generator=generator)
        yield torch.stack([text[i : i + context + 1] for i in starts])


def _save(model: nn.Module, path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
