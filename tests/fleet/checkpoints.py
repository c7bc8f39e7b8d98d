"""Stamped checkpoints of a network of two weights: a diagnosis takes milliseconds."""

from __future__ import annotations

import json
import math
from pathlib import Path

STAMP = {
    "model": {"gallery": "toy-network"},
    "data": {"gallery": "toy-network"},
    "loss": {"name": "mse"},
    "sam": {"rho": 0.1, "lr": 0.1, "batch_size": 8},
}


def write_checkpoint(path: Path, number: int) -> Path:
    """A point of its own for every `number`; some lie at the saddle, some at the minimum, most between."""
    import torch
    from safetensors.torch import save_file

    weights = torch.tensor([math.sin(number), math.cos(number) * (number % 3)], dtype=torch.float64)
    save_file({"w": weights}, path, metadata={"samdiag": json.dumps(STAMP)})
    return path


def write_run(folder: Path, count: int) -> list[str]:
    """Names of so many checkpoints of one run, by training step."""
    return [write_checkpoint(folder / f"step-{10 * i}.safetensors", i).name for i in range(1, count + 1)]
