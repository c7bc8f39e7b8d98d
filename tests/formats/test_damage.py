"""Whatever happens to a file's bytes, opening it gives a checkpoint or an error of ours."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from samdiag.errors import SamdiagError
from samdiag.formats import open_checkpoint


def damaged(content: bytes, rng: random.Random) -> bytes:
    """`content` with a few bytes replaced, removed or added."""
    result = bytearray(content)
    for _ in range(rng.choice([1, 2, 5, 30])):
        start, num_bytes = rng.randrange(len(result)), rng.randrange(1, 9)
        replacement = rng.randbytes(rng.choice([0, num_bytes]))
        result[start : start + rng.choice([0, num_bytes])] = replacement
    return bytes(result)


@pytest.mark.parametrize("format_name", ["safetensors", "torch-zip"])
def test_random_damage_never_escapes(tmp_path: Path, network: torch.nn.Module, format_name: str) -> None:
    path = tmp_path / "a"
    state = network.state_dict()
    if format_name == "safetensors":
        save_file(state, path, metadata={"samdiag": '{"sam": {"rho": 0.1}}'})
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        torch.save({"model": state, "optimizer": optimizer.state_dict()}, path)
    whole, rng = path.read_bytes(), random.Random(0)
    complaints = []
    for _ in range(400):
        path.write_bytes(damaged(whole, rng))
        try:
            open_checkpoint(path).weights()
        except SamdiagError as error:
            complaints.append(error.what)
    assert complaints
    assert all(what.isprintable() for what in complaints)
