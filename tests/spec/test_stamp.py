"""A stamp changes the header and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats import open_checkpoint
from samdiag.formats.safetensors_header import read_header
from samdiag.spec import stamp

GOOD: dict[str, Any] = {"model": "tiny", "data": "tiny-data", "loss": "mse"}


def data_bytes(path: Path) -> bytes:
    return path.read_bytes()[read_header(path).data_start :]


def test_a_stamp_is_read_back(checkpoint_path: Path, weights: dict[str, torch.Tensor]) -> None:
    before, mode = data_bytes(checkpoint_path), checkpoint_path.stat().st_mode
    stamp(checkpoint_path, **GOOD, rho=0.05, variant="asam", lr=0.1, momentum=0.9, weight_decay=1e-4, batch_size=128)
    checkpoint = open_checkpoint(checkpoint_path)
    assert checkpoint.stamp == {
        "model": {"gallery": "tiny", "args": {}},
        "data": {"gallery": "tiny-data", "args": {}},
        "loss": {"name": "mse"},
        "sam": {"rho": 0.05, "variant": "asam", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 128},
    }
    assert data_bytes(checkpoint_path) == before
    assert read_header(checkpoint_path).data_start % 8 == 0
    assert checkpoint_path.stat().st_mode == mode
    assert os.listdir(checkpoint_path.parent) == [checkpoint_path.name]
    with safe_open(checkpoint_path, framework="pt") as file:  # the library reads it too
        assert file.metadata()["epoch"] == "3"
        assert all(torch.equal(file.get_tensor(name), value) for name, value in weights.items())


def test_a_new_stamp_replaces_the_old_one(checkpoint_path: Path) -> None:
    for rho in (0.05, 0.1):
        stamp(checkpoint_path, **GOOD, rho=rho)
    checkpoint = open_checkpoint(checkpoint_path)
    assert checkpoint.stamp is not None
    assert checkpoint.stamp["sam"] == {"rho": 0.1}


def test_tables_with_arguments(checkpoint_path: Path) -> None:
    stamp(checkpoint_path, model={"gallery": "tiny", "args": {"hidden": 3}}, data="tiny-data")
    checkpoint = open_checkpoint(checkpoint_path)
    assert checkpoint.stamp is not None
    assert checkpoint.stamp["model"]["args"] == {"hidden": 3}
    assert checkpoint.stamp["loss"] == {"name": "cross_entropy"}


def test_a_link_is_followed(checkpoint_path: Path, folder: Path) -> None:
    (folder / "link.safetensors").symlink_to(checkpoint_path)
    stamp(folder / "link.safetensors", **GOOD)
    assert (folder / "link.safetensors").is_symlink()
    assert open_checkpoint(checkpoint_path).stamp is not None


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"model": "train:model"}, "may not name code"),
        ({"model": {"python": "train:model"}}, "may not name code"),
        ({"loss": "train.py:loss"}, "may not name code"),
        ({"data": {"folder": "images"}}, "may not name code or paths"),
        ({"data": {"gallery": "tiny-data", "num_samples": 3}}, "no say in how it is judged"),
        ({"rho": -1}, "sam.rho = -1"),
        ({"model": {"gallery": "tiny", "args": {"x": "y" * 100_001}}}, "characters"),
        ({"loss": "crossentropy"}, "cross_entropy"),
        ({"model": "tinny"}, "no model named .*did you mean 'tiny'"),
        ({"data": {"gallery": "tiny-dta"}}, "no data named .*did you mean 'tiny-data'"),
    ],
)
def test_a_stamp_that_would_be_refused_is_not_written(
    checkpoint_path: Path, changed: dict[str, Any], what: str
) -> None:
    before = checkpoint_path.read_bytes()
    with pytest.raises(UsageError, match=what):
        stamp(checkpoint_path, **{**GOOD, **changed})
    assert checkpoint_path.read_bytes() == before


def test_only_safetensors_can_be_stamped(folder: Path) -> None:
    torch.save({"w": torch.zeros(2)}, folder / "a.pt")
    with pytest.raises(UsageError, match=r"not a \.safetensors file"):
        stamp(folder / "a.pt", **GOOD)
    with pytest.raises(UsageError, match="does not exist"):
        stamp(folder / "b.safetensors", **GOOD)


def test_a_damaged_file_is_not_stamped(checkpoint_path: Path) -> None:
    damaged = checkpoint_path.read_bytes()[:-1]
    checkpoint_path.write_bytes(damaged)
    with pytest.raises(CannotDecide, match="truncated"):
        stamp(checkpoint_path, **GOOD)
    assert checkpoint_path.read_bytes() == damaged


def test_an_interrupted_stamp_leaves_the_file(checkpoint_path: Path, monkeypatch) -> None:
    before = checkpoint_path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CannotDecide, match="No space left"):
        stamp(checkpoint_path, **GOOD)
    assert checkpoint_path.read_bytes() == before
    assert os.listdir(checkpoint_path.parent) == [checkpoint_path.name]


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.one_of(st.text(max_size=8), st.booleans(), st.integers(0, 9)))
)
def test_any_plain_arguments_survive(tmp_path_factory, args: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("stamp") / "a.safetensors"
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, path)
    stamp(path, model={"gallery": "tiny", "args": args}, data="tiny-data")
    checkpoint = open_checkpoint(path)
    assert checkpoint.stamp is not None
    assert checkpoint.stamp["model"]["args"] == args
