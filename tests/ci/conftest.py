"""A project with three tiny checkpoints, and the shell that a CI system would run its commands in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs" / "ci"
# Beale's function: on its way, at its minimum, and caught beside its saddle
WEIGHTS = {100: (2.0, 0.2), 200: (3.0, 0.5), 300: (0.001, 1.0)}
SETTINGS = """\
model = { gallery = "beale" }
data = { gallery = "beale" }
loss = "model"
[sam]
rho = 0.1
lr = 0.001
"""
Shell = Callable[..., subprocess.CompletedProcess[str]]


def save(step: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_file({"w": torch.tensor(WEIGHTS[step], dtype=torch.float64)}, folder / f"step_{step}.safetensors")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder that a CI system has checked out; the checkpoint of step 300 is stuck."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "samdiag.toml").write_text(SETTINGS, encoding="utf-8")
    for step in WEIGHTS:
        save(step, folder / "checkpoints")
    return folder


@pytest.fixture
def shell(project: Path, tmp_path: Path) -> Shell:
    """Runs a script in the project, with `samdiag` on the PATH and the variables given."""

    def run(
        script: str, *, command: tuple[str, ...] = ("bash", "-eo", "pipefail", "-c"), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        said = {"PATH": path, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8", **variables}
        return subprocess.run(
            [*command, script], cwd=project, env=said, capture_output=True, text=True, check=False, timeout=300
        )

    return run
