"""The ground on which attacks take place, and the command run there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests import torchvision_ops
from tests.cli.conftest import PROBLEMS, clean_environment, clean_process, inspect, network, run, work
from tests.hostile.attack import Ground

__all__ = ["clean_environment", "clean_process", "inspect", "run", "work"]  # fixtures, used by name


@pytest.fixture(scope="session", autouse=True)
def _catalogs() -> None:
    """timm and transformers import, also where torchvision's compiled operators do not load."""
    torchvision_ops.declare()


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """A working folder with honest code, a folder for what came from elsewhere, and one out of reach."""
    folders = {name: tmp_path / name for name in ("work", "outside")}
    for folder in folders.values():
        folder.mkdir()
        folder.chmod(0o755)
    (folders["work"] / ".git").mkdir()  # the search for a project file ends here
    (folders["work"] / "download").mkdir()
    shutil.copy(PROBLEMS, folders["work"])
    made = Ground(
        work=folders["work"],
        download=folders["work"] / "download",
        outside=folders["outside"],
        marker=tmp_path / "marker",
    )
    save_file(network().state_dict(), made.secret)
    monkeypatch.chdir(made.work)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield made
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
