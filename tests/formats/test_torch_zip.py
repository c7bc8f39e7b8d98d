"""Files of torch.save: nothing in them is run."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats import open_checkpoint


class Payload:
    """An object whose unpickling runs a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, object]:
        return self.call


def with_pickle(path: Path, stream: bytes) -> Path:
    """The archive at `path` with `stream` in place of its data.pkl."""
    with zipfile.ZipFile(path) as old:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in entries.items():
            new.writestr(name, stream if name.endswith("data.pkl") else content)
    return path


def test_weights_come_back(save, network: nn.Module) -> None:
    checkpoint = open_checkpoint(save(network.state_dict(), "weights.anything"))
    assert checkpoint.format == "torch-zip"
    assert checkpoint.stamp is None
    assert checkpoint.notes == ()
    assert all(torch.equal(checkpoint.weights()[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.mkdir, eval, exec, Path.mkdir, os.system])
def test_a_payload_is_not_run(save, tmp_path: Path, protocol: int, function: object) -> None:
    marker = tmp_path / "marker"
    argument = {eval: f"__import__('os').mkdir({str(marker)!r})", os.system: f"mkdir {marker}", Path.mkdir: marker}
    argument[exec] = argument[eval]
    stream = pickle.dumps({"w": Payload(function, argument.get(function, str(marker)))}, protocol=protocol)
    path = with_pickle(save({"w": torch.zeros(2)}), stream)
    with pytest.raises(CannotDecide) as caught:
        open_checkpoint(path)
    assert not marker.exists()
    assert "a.pt" in caught.value.what
    assert "weights_only=False" not in str(caught.value)
    pickle.loads(stream) if function is os.mkdir else None  # the payload does work where it is run
    assert marker.exists() == (function is os.mkdir)


def test_the_environment_does_not_turn_it_off(save, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    stream = pickle.dumps({"w": Payload(os.mkdir, str(tmp_path / "marker"))}, protocol=2)
    with pytest.raises(CannotDecide, match="wants to run"):
        open_checkpoint(with_pickle(save({"w": torch.zeros(2)}), stream))
    assert not (tmp_path / "marker").exists()


def test_a_stand_in_cannot_be_used_to_reach_another_class(save) -> None:
    stream = b"\x80\x02cargparse\nNamespace\n)\x81}X\x09\x00\x00\x00__class__cbuiltins\neval\nsb."
    with pytest.raises(CannotDecide, match="eval"):
        open_checkpoint(with_pickle(save({"w": torch.zeros(2)}), stream))


def test_a_pickled_module_names_the_class_and_the_conversion(save, network: nn.Module) -> None:
    with pytest.raises(CannotDecide, match=r"torch\.nn\.modules\.container\.Sequential") as caught:
        open_checkpoint(save(network))
    assert "torch.save(model.state_dict()" in caught.value.todo
    assert "trust" in caught.value.todo


def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py", "m/version"):
            archive.writestr(name, b"")
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CannotDecide, match="TorchScript") as caught:
        open_checkpoint(tmp_path / "a.pt")
    assert "torch.jit.load" in caught.value.todo


def test_what_scripts_save_beside_the_weights_does_no_harm(save) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),
        "best": np.float64(0.5),
        "history": collections.defaultdict(list, {"loss": [np.float32(1.0)]}),
        "array": np.zeros((2, 2)),
        "epoch": 3,
    }
    checkpoint = open_checkpoint(save({"model": {"w": torch.ones(2)}, **beside}))
    assert torch.equal(checkpoint.weights()["w"], torch.ones(2))


def test_numpy_numbers_in_the_optimizer_are_read(save) -> None:
    group = {"params": [0], "lr": np.float64(0.25), "rho": np.float32(0.5)}
    checkpoint = open_checkpoint(
        save({"model": {"w": torch.ones(2)}, "optimizer": {"state": {}, "param_groups": [group]}})
    )
    assert {name: hint.value for name, hint in checkpoint.hints.items()} == {"sam.lr": 0.25, "sam.rho": 0.5}


@pytest.mark.parametrize(
    "saved",
    [{"epoch": 3}, [torch.zeros(2)], torch.zeros(2), {}, {"model": {}}, {"w": torch.zeros(2), "epoch": 3}, "text"],
)
def test_nothing_like_weights(save, saved: object) -> None:
    with pytest.raises(CannotDecide, match="nothing that looks like weights"):
        open_checkpoint(save(saved))


def test_tensors_without_values_are_refused(save) -> None:
    for tensor in (torch.zeros(2, device="meta"), torch.eye(2).to_sparse()):
        with pytest.raises(CannotDecide, match="without plain values"):
            open_checkpoint(save({"w": tensor}))


def test_ema_is_used_on_request_only(save) -> None:
    raw, averaged = {"w": torch.zeros(2)}, {"n_averaged": torch.tensor(3), "module.w": torch.ones(2)}
    checkpoint = open_checkpoint(save({"state_dict": raw, "state_dict_ema": averaged}))
    assert torch.equal(checkpoint.weights()["w"], torch.zeros(2))
    assert checkpoint.weights("ema").keys() == {"w"}
    assert torch.equal(checkpoint.weights("ema")["w"], torch.ones(2))
    assert any("EMA" in note for note in checkpoint.notes)


def test_ema_alone_or_absent(save) -> None:
    alone = open_checkpoint(save({"ema": {"model": {"w": torch.ones(2)}}}))
    assert alone.weights("ema").keys() == {"w"}
    with pytest.raises(CannotDecide, match="nothing that looks like weights"):
        alone.weights()
    with pytest.raises(UsageError, match="no EMA weights"):
        open_checkpoint(save({"w": torch.ones(2)}, "b.pt")).weights("ema")
