"""Safetensors: read by header, bounded, never believed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats import open_checkpoint
from samdiag.formats.safetensors_header import DTYPE_BYTES, read_header

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TWO = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


def test_open_reads_format_fingerprint_and_weights(tmp_path: Path, network: torch.nn.Module) -> None:
    path = tmp_path / "named_like_nothing"
    save_file(network.state_dict(), path)
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.format == "safetensors"
    assert checkpoint.fingerprint == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert checkpoint.stamp is None
    assert dict(checkpoint.hints) == {}
    weights = checkpoint.weights()
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


def test_opening_does_not_import_torch(write_safetensors) -> None:
    path = write_safetensors({"w": ONE}, bytes(8))
    code = (
        f"import sys; from samdiag.formats import open_checkpoint as o; o({str(path)!r}); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_every_dtype_comes_back_as_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"w": torch.tensor([0, 1, 1]).to(dtype)}, tmp_path / "a.safetensors")
    assert open_checkpoint(tmp_path / "a.safetensors").weights()["w"].dtype == dtype


@pytest.mark.parametrize(
    ("header", "data", "found"),
    [
        ({"w": ONE}, bytes(7), "truncated"),
        ({"w": ONE}, bytes(9), "belong to no tensor"),
        ({"w": ONE, "v": ONE}, bytes(8), "overlaps"),
        ({"w": ONE, "v": {**TWO, "data_offsets": [4, 12]}}, bytes(16), "overlaps"),
        ({"w": ONE, "v": {**TWO, "data_offsets": [12, 20]}}, bytes(20), "belong to no tensor"),
        ({"w": {**ONE, "shape": [3]}}, bytes(8), "needs 12 bytes"),
        ({"w": {**ONE, "shape": [2**40, 2**40]}}, bytes(8), "needs"),
        ({"w": {**ONE, "shape": [-2]}}, bytes(8), "shape"),
        ({"w": {**ONE, "shape": [True, 2]}}, bytes(8), "shape"),
        ({"w": {**ONE, "shape": [1] * 65}}, bytes(8), "shape"),
        ({"w": {**ONE, "data_offsets": [8, 0]}}, bytes(8), "offsets"),
        ({"w": {**ONE, "data_offsets": [0, 2**70]}}, bytes(8), "offsets"),
        ({"w": {**ONE, "dtype": "Q4"}}, bytes(8), "unknown dtype"),
        ({"w": {**ONE, "dtype": ["F32"]}}, bytes(8), "unknown dtype"),
        ({"w": {"dtype": "F32"}}, b"", "no dtype, shape and data_offsets"),
        ({"w": 3}, b"", "no dtype, shape and data_offsets"),
        ({"n" * 1025: ONE}, bytes(8), "1025 characters"),
        ({"__metadata__": {"a": 1}, "w": ONE}, bytes(8), "__metadata__"),
        (b'{"w": 1, "w": 2}', b"", "twice"),
        (b'{"w": NaN}', b"", "not valid JSON"),
        (b'{"w": ' + b"[" * 100_000, b"", "not valid JSON"),
        (b'{"w": \xff}', b"", "not valid JSON"),
        (b'{"w": ' + b"9" * 5000 + b"}", b"", "not valid JSON"),
        (b"{not json", b"", "not valid JSON"),
        ({}, b"", "no tensors"),
    ],
)
def test_a_header_that_lies_is_refused(write_safetensors, header, data, found) -> None:
    with pytest.raises(CannotDecide, match=found) as caught:
        open_checkpoint(write_safetensors(header, data))
    assert "a.safetensors" in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 1000])
def test_a_header_longer_than_the_file_is_refused(write_safetensors, length) -> None:
    with pytest.raises(CannotDecide, match=f"claims {length} bytes"):
        open_checkpoint(write_safetensors({"w": ONE}, bytes(8), length=length))


def test_too_many_tensors_are_refused(write_safetensors, monkeypatch) -> None:
    monkeypatch.setattr("samdiag.formats.safetensors_header.MAX_TENSORS", 1)
    with pytest.raises(CannotDecide, match="claims 2 tensors"):
        open_checkpoint(write_safetensors({"w": ONE, "v": TWO}, bytes(16)))


def test_control_characters_of_a_name_are_escaped(write_safetensors) -> None:
    with pytest.raises(CannotDecide) as caught:
        open_checkpoint(write_safetensors({"\x1b[31mred\u202e": 3}))
    assert caught.value.what.isprintable()


def test_dtypes_and_sizes_agree_with_the_library(tmp_path: Path) -> None:
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint16, torch.complex64]
    save_file({str(dtype): torch.zeros(3).to(dtype) for dtype in dtypes}, tmp_path / "a.safetensors")
    entries = read_header(tmp_path / "a.safetensors").tensors
    assert {str(d): d.itemsize for d in dtypes} == {name: DTYPE_BYTES[entry.dtype] for name, entry in entries.items()}


def test_a_file_that_changes_after_opening_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(3)}, path)
    checkpoint = open_checkpoint(path)
    save_file({"w": torch.zeros(300)}, path)
    with pytest.raises(CannotDecide, match="changed while"):
        checkpoint.weights()


def test_there_are_no_ema_weights_and_no_other_kinds(write_safetensors) -> None:
    checkpoint = open_checkpoint(write_safetensors({"w": ONE}, bytes(8)))
    with pytest.raises(UsageError, match="no EMA weights"):
        checkpoint.weights("ema")
    with pytest.raises(UsageError, match="unknown"):
        checkpoint.weights("best")


def test_the_stamp_is_plain_json(write_safetensors) -> None:
    path = write_safetensors({"__metadata__": {"samdiag": '{"sam": {"rho": 0.1}}', "x": "y"}, "w": ONE}, bytes(8))
    assert open_checkpoint(path).stamp == {"sam": {"rho": 0.1}}


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a":' * 20 + "1" + "}" * 20, '"' + "x" * 100_001 + '"', ""]
)
def test_an_unreadable_stamp_is_a_note(write_safetensors, text) -> None:
    checkpoint = open_checkpoint(write_safetensors({"__metadata__": {"samdiag": text}, "w": ONE}, bytes(8)))
    assert checkpoint.stamp is None
    assert any("stamp is ignored" in note for note in checkpoint.notes)
