"""One copy in memory: loading needs little more than the model itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

NUM, WIDTH = 4, 4096  # 256 MiB: the interpreter's own growth of some 35 MB is then below an eighth
MOST = 1.3  # times the weights
ROOT = Path(__file__).parents[2]


def tensors(value: float = 0.0) -> dict[str, torch.Tensor]:
    return {f"{index}.weight": torch.full((WIDTH, WIDTH), index + value) for index in range(NUM)}


def write_safetensors(folder: Path) -> Path:
    save_file(tensors(), folder / "a.safetensors")
    return folder / "a.safetensors"


def write_shards(folder: Path) -> Path:
    for name, value in tensors().items():
        save_file({name: value}, folder / f"{name}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: f"{name}.safetensors" for name in tensors()}}))
    return index


def write_torch(folder: Path, **options: Any) -> Path:
    momentum = {index: {"momentum_buffer": torch.zeros(WIDTH, WIDTH)} for index in range(NUM)}
    state = {"state": momentum, "param_groups": [{"lr": 0.1, "momentum": 0.9, "params": list(range(NUM))}]}
    torch.save({"state_dict": tensors(), "optimizer": state}, folder / "a.pt", **options)
    return folder / "a.pt"


def write_between(folder: Path) -> Path:
    """Saved between the two steps of SAM: every weight has moved, and old_p is compared with it."""
    kept = {index: {"old_p": value} for index, value in enumerate(tensors().values())}
    move = 0.5 / (NUM * WIDTH * WIDTH) ** 0.5  # of each weight, so that the whole has length 0.5
    state = {"state": kept, "param_groups": [{"lr": 0.1, "rho": 0.5, "params": list(range(NUM))}]}
    torch.save({"state_dict": {n: v + move for n, v in tensors().items()}, "optimizer": state}, folder / "a.pt")
    return folder / "a.pt"


WRITERS = {
    "safetensors": write_safetensors,
    "shards": write_shards,
    "torch with momentum buffers": write_torch,
    "torch before 1.6": lambda folder: write_torch(folder, _use_new_zipfile_serialization=False),
    "between the steps of SAM": write_between,
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's")
@pytest.mark.parametrize("kind", WRITERS)
def test_loading_needs_little_more_than_the_model(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path)
    command = [sys.executable, "-m", "tests.spec.memory_probe", str(path), str(NUM), str(WIDTH)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert found["weights"] < found["peak"] < MOST * found["weights"]
