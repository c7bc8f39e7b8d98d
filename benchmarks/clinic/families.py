"""What the clinic trains: every family's data, network, settings and seeds, written out.

Even seeds are the first half, on which thresholds may be set; odd seeds are the second half, which is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from benchmarks.clinic import models
from benchmarks.clinic.training import Criterion, Setting

ALL = (0.1, 0.4, 1.0)  # of a run's steps: where its checkpoints are


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of run.

    Attributes:
        name, what: for people.
        model: seed → the untrained network.
        data: seed → the training set, all of it.
        settings, quick: what is run, and the few of them in a quick run.
        seeds: how many of them.
        steps: of a run.
        horizon: H, the steps of a continuation.
        orders: data orders of a continuation; 1 where nothing is random.
        lower_bound: of the loss; None: unbounded, and then the truth is whether the saddle is left.
        replacement: mini-batches drawn independently of each other.
        criterion: (outputs, targets) → mean loss.
    """

    name: str
    what: str
    model: Callable[[int], nn.Module]
    data: Callable[[int], TensorDataset]
    settings: tuple[Setting, ...]
    quick: tuple[Setting, ...]
    seeds: int
    steps: int
    horizon: int
    orders: int = 1
    fractions: tuple[float, ...] = ALL
    lower_bound: float | None = 0.0
    replacement: bool = False
    criterion: Criterion = functional.cross_entropy


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run of a family."""

    family: str
    setting: Setting
    seed: int

    @property
    def half(self) -> str:
        return "first" if self.seed % 2 == 0 else "second"

    def case(self, fraction: float) -> str:
        """The name of the case after this fraction of the steps: a path without its ending."""
        return f"{self.family}/{self.setting.name}-s{self.seed}-p{round(100 * fraction)}"


def grid(
    *, lr: tuple[float, ...], rho: tuple[float, ...], momentum: tuple[float, ...] = (0.0,), batch: int | None = None
) -> tuple[Setting, ...]:
    """Every combination."""
    return tuple(Setting(lr=a, rho=r, momentum=m, batch_size=batch) for a in lr for m in momentum for r in rho)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="mnist-tanh",
            what="784-32-10 tanh network, 1000 MNIST digits (others for every seed), full batch",
            model=models.mnist_tanh,
            data=models.mnist_thousand,
            settings=grid(lr=(0.05, 0.5), rho=(0.05, 0.5, 1.0, 2.0, 5.0)),
            quick=grid(lr=(0.5,), rho=(0.05, 2.0)),
            seeds=4,
            steps=1500,
            horizon=1000,
        ),
        Family(
            name="digits-mlp",
            what="64-32-10 tanh network, 1797 digits of 8×8 pixels, full batch",
            model=lambda seed: models.digits_mlp(seed, "tanh"),
            data=models.digits,
            settings=grid(lr=(0.2,), momentum=(0.0, 0.9), rho=(0.05, 0.5, 1.0, 2.0)),
            quick=grid(lr=(0.2,), rho=(0.5, 2.0)),
            seeds=4,
            steps=1000,
            horizon=1000,
            fractions=(0.1, 1.0),
        ),
        Family(
            name="digits-relu",
            what="64-32-10 ReLU network, 1797 digits of 8×8 pixels, full batch",
            model=lambda seed: models.digits_mlp(seed, "relu"),
            data=models.digits,
            settings=grid(lr=(0.2,), momentum=(0.0, 0.9), rho=(0.05, 0.5, 1.0, 2.0)),
            quick=grid(lr=(0.2,), rho=(0.5, 2.0)),
            seeds=4,
            steps=1000,
            horizon=1000,
            fractions=(0.1, 1.0),
        ),
        Family(
            name="toy",
            what="the toy network w2 tanh(w1 x) with weights from N(0, 0.1²), 8 samples, full batch",
            model=models.toy,
            data=models.toy_data,
            settings=grid(lr=(0.02,), rho=(0.05, 0.1, 0.2, 0.5)),
            quick=grid(lr=(0.02,), rho=(0.1, 0.5)),
            seeds=6,
            steps=2000,
            horizon=1000,
            fractions=(0.1, 1.0),
            criterion=functional.mse_loss,
        ),
        Family(
            name="saddle-200",
            what="exact noisy quadratic saddles in 200 dimensions, batches of 64 drawn independently",
            model=models.saddle,
            data=models.saddle_data,
            settings=grid(lr=(0.04,), momentum=(0.0, 0.9), rho=models.SADDLE_RHO, batch=models.SADDLE_BATCH),
            quick=grid(lr=(0.04,), rho=(models.SADDLE_RHO[0], models.SADDLE_RHO[-1]), batch=models.SADDLE_BATCH),
            seeds=6,
            steps=100,
            horizon=500,
            orders=3,
            lower_bound=None,
            replacement=True,
            criterion=models.mean_output,
        ),
        Family(
            name="conv-bn",
            what="two ReLU convolutions with BatchNorm, 1024 MNIST digits, batches of 64",
            model=models.conv_bn,
            data=lambda seed: models.mnist_images(seed, 1024),
            settings=grid(lr=(0.05,), momentum=(0.0, 0.9), rho=(0.05, 0.5, 2.0, 8.0), batch=64),
            quick=grid(lr=(0.05,), rho=(0.05, 8.0), batch=64),
            seeds=2,
            steps=400,
            horizon=300,
            orders=2,
            fractions=(0.1, 1.0),
        ),
        Family(
            name="transformer",
            what="character-level transformer of two layers, 256 sequences of 16 from Python's help, batches of 32",
            model=models.transformer,
            data=models.help_text,
            settings=grid(lr=(0.1,), momentum=(0.9,), rho=(0.05, 0.2, 1.0, 4.0), batch=32),
            quick=grid(lr=(0.1,), momentum=(0.9,), rho=(0.05, 4.0), batch=32),
            seeds=2,
            steps=400,
            horizon=300,
            orders=2,
            fractions=(0.1, 1.0),
            criterion=models.token_loss,
        ),
        Family(
            name="kim",
            what="two ReLU convolutions without BatchNorm, 1024 MNIST digits: batches of 512 without momentum"
            " against batches of 32 with momentum 0.9",
            model=models.conv,
            data=lambda seed: models.mnist_images(seed, 1024),
            settings=(
                *grid(lr=(0.1,), rho=(0.05, 0.5, 2.0), batch=512),
                *grid(lr=(0.1,), rho=(0.05, 0.5, 2.0), momentum=(0.9,), batch=32),
            ),
            quick=(
                Setting(lr=0.1, rho=0.5, batch_size=512),
                Setting(lr=0.1, rho=0.5, batch_size=32, momentum=0.9),
            ),
            seeds=2,
            steps=400,
            horizon=300,
            orders=2,
            fractions=(0.1, 1.0),
        ),
    )
}


def runs_of(family: Family, *, half: str, quick: bool, scale: float = 1.0) -> Iterator[Run]:
    """The family's runs in the order in which they are made: seed by seed, the first half first."""
    seeds = range(2) if quick else range(max(2, round(scale * family.seeds)))
    wanted = {"first": (0,), "second": (1,), "both": (0, 1)}[half]
    for parity in wanted:
        for seed in seeds:
            if seed % 2 == parity:
                for setting in family.quick if quick else family.settings:
                    yield Run(family=family.name, setting=setting, seed=seed)


def fresh(family: Family, seed: int) -> nn.Module:
    """The untrained network of this seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.model(seed)


def cut(data: TensorDataset, size: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of `size` samples; the last one holds the rest."""
    inputs, targets = data.tensors
    return list(zip(inputs.split(size), targets.split(size), strict=True))
