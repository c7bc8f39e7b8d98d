"""A working folder for guesses, and checkpoints in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from samdiag.formats import open_checkpoint
from samdiag.guessing.guess import propose
from samdiag.guessing.outline import Outline
from samdiag.guessing.proposal import Proposal

Propose = Callable[..., Proposal]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    work = tmp_path / "work"
    (work / ".git").mkdir(parents=True)
    (work / "runs").mkdir()
    work.chmod(0o755)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path))
    return work


@pytest.fixture
def proposed(folder: Path) -> Propose:
    """The proposal for a model's state dict, saved in runs/."""

    def run(weights: nn.Module | Mapping[str, Any], name: str = "a.pt", **more: Any) -> Proposal:
        state = weights.state_dict() if isinstance(weights, nn.Module) else weights
        torch.save(state, folder / "runs" / name)
        opened = open_checkpoint(folder / "runs" / name)
        return propose(opened, path=f"runs/{name}", folder=folder, said=more.pop("said", {}), **more)

    return run


def outline(module: nn.Module) -> Outline:
    """The outline of a module's state dict."""
    return Outline(shapes={name: tuple(value.shape) for name, value in module.state_dict().items()})


def part(proposal: Proposal, name: str) -> Any:
    """What a proposal says of a part; None where it says nothing."""
    found = next(part for part in proposal.parts if part.name == name)
    return None if found.chosen is None else found.chosen.value
