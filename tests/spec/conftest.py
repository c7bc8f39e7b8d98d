"""A working folder of one's own, with a checkpoint and a project in it, and a catalog of one model."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset

from samdiag import registry
from samdiag.formats import Checkpoint, open_checkpoint
from samdiag.spec import Resolution, resolve, stamp

TRAIN = """
import torch
from torch import nn
from samdiag.types import Problem

def model(hidden=3):
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))

def data(n=40):
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.TensorDataset(
        torch.randn(n, 2, generator=generator), torch.randint(2, (n,), generator=generator)
    )

def batches():
    return [data()[:20], data()[20:]]

def loss(model, batch):
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets)

def problem():
    return Problem(model=model(), loss=loss, batches=batches())

ready = problem()
number = 3

def fails():
    print("before failing")
    raise ValueError("no such run")

def generator():
    yield from batches()

def one_argument(model):
    return 0
"""
SPEC = {"model": "train.py:model", "data": "train.py:data", "loss": "cross_entropy"}


def tiny_model(hidden: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))


def tiny_data(num_samples: int = 40) -> TensorDataset:
    return TensorDataset(torch.randn(num_samples, 2), torch.randint(2, (num_samples,)))


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """What a test imports and puts on `sys.path` is gone after it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("_samdiag_user_") or name.split(".")[0] in {"train", "sibling", "broken"}:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def tiny_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("tiny_catalog")
    module.model, module.data = tiny_model, tiny_data
    monkeypatch.setitem(sys.modules, "tiny_catalog", module)
    monkeypatch.setattr(registry, "CATALOG_MODELS", {"gallery": {"tiny": "tiny_catalog:model"}})
    monkeypatch.setattr(registry, "CATALOG_DATA", {"gallery": {"tiny-data": "tiny_catalog:data"}})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder: the search for a project file ends here."""
    work = tmp_path / "work"
    (work / ".git").mkdir(parents=True)
    work.chmod(0o755)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path))
    return work


@pytest.fixture
def train(folder: Path) -> Path:
    (folder / "train.py").write_text(TRAIN)
    return folder / "train.py"


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return tiny_model().state_dict()


@pytest.fixture
def checkpoint_path(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """A checkpoint in a folder of its own."""
    (folder / "runs").mkdir()
    save_file(weights, folder / "runs" / "a.safetensors", metadata={"epoch": "3"})
    return folder / "runs" / "a.safetensors"


@pytest.fixture
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    return open_checkpoint(checkpoint_path)


@pytest.fixture
def stamped(checkpoint_path: Path) -> Checkpoint:
    stamp(checkpoint_path, model="tiny", data="tiny-data", loss="cross_entropy", rho=0.07, lr=0.3)
    return open_checkpoint(checkpoint_path)


@pytest.fixture
def resolved(folder: Path) -> Callable[..., Resolution]:
    """`resolve` in the working folder, from overrides by dotted name."""

    def run(
        checkpoint: Checkpoint | None, overrides: dict[str, Any] | None = None, config: str | None = None
    ) -> Resolution:
        return resolve(overrides=overrides or {}, config=config, checkpoint=checkpoint, cwd=folder)

    return run
