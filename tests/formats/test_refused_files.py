"""What is no readable checkpoint is refused by name, with the way out."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from samdiag import registry
from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.formats import open_checkpoint
from samdiag.formats.recognition import Format


def refused(path: Path, kind: type[SamdiagError] = CannotDecide) -> SamdiagError:
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    error = caught.value
    assert path.name in error.what
    assert "\n" not in error.what + error.todo
    assert error.todo
    return error


@pytest.mark.parametrize(
    ("content", "what", "todo"),
    [
        (b"", "empty", "write the file again"),
        (b"hello, this is text\n" * 9, "not a checkpoint: text", "torch.save"),
        ("grüße".encode() * 2000, "not a checkpoint: text", "torch.save"),
        (bytes(range(200, 256)) * 9, "unknown binary data", "torch.save"),
        (b"\x00", "unknown binary data", "torch.save"),
        (b'{"a": "b"}', "not a checkpoint: text", "torch.save"),
        (b"tjgg\x03\x00\x00\x00", "ggml", "converted from"),
        (b"ftrt\x00\x00\x00\x00\x01", "TensorRT", "exported from"),
        (b"\x1c\x00\x00\x00ET12" + bytes(9), "ExecuTorch", "exported from"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(9), "TensorFlow Lite", "exported from"),
        (b"BZh91AY&SY", "bzip2", "bunzip2"),
        (b"7z\xbc\xaf\x27\x1c", "7z", "7z x"),
        (bytes(257) + b"ustar\x0000", "tar archive", "tar xf"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS", "git lfs pull"),
        (b"GGUF\x03\x00\x00\x00", "GGUF", "converted from"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "HDF5", "model.state_dict"),
        (b"\x08\x07\x12\x07pytorch\x1a\x00", "ONNX", "model.state_dict"),
        (b"\x93NUMPY\x01\x00", "NumPy", "save_file"),
        (b"\x1f\x8b\x08\x00", "gzip", "gunzip"),
        (b"<!DOCTYPE html><html>", "web page", "download"),
        (b"\x80\x04\x95\x00\x00", "plain Python pickle", "model.state_dict"),
        (b"PK\x03\x04" + bytes(50), "damaged zip", "again"),
    ],
)
def test_refused_by_content(tmp_path: Path, content: bytes, what: str, todo: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    error = refused(path)
    assert what in error.what
    assert todo in error.todo
    assert error.exit_code == 3


def test_names_only_add_to_the_message(tmp_path: Path) -> None:
    for name, what in (("a.safetensors", "safetensors"), ("a.index.json", "sharded"), ("a.onnx", "ONNX")):
        (tmp_path / name).write_bytes(b"\x01\x02" if name.endswith("onnx") else b"{}")
        assert what in refused(tmp_path / name).what


def test_missing_file_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"x")
    error = refused(tmp_path / "lost.pt", UsageError)
    assert error.exit_code == 2
    assert "last.pt" in error.todo
    assert "no folder" in refused(tmp_path / "nowhere" / "a.pt", UsageError).todo


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("flax_model.msgpack", "Flax"),
        ("saved_model.pb", "TensorFlow"),
        ("a.mlmodel", "Core ML"),
        ("a.engine", "TensorRT"),
        ("__0_0.distcp", "torch.distributed.checkpoint"),
        (".metadata", "torch.distributed.checkpoint"),
    ],
)
def test_refused_by_name_where_the_content_says_nothing(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04\x95\x01" + bytes(9))
    assert what in refused(tmp_path / name).what


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refused(tmp_path / "pipe", UsageError).what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    (tmp_path / "a.pt").chmod(0)
    assert "cannot be read" in refused(tmp_path / "a.pt").what


def test_tar_archive(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.pth.tar", "w") as archive:
        archive.add(tmp_path / "weights.pt", "weights.pt")
    error = refused(tmp_path / "a.pth.tar")
    assert "tar archive" in error.what
    assert "unpack" in error.todo


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"word/document.xml": b"x"}, "no data.pkl"),
        ({"a.npy": b"x"}, ".npz"),
        ({"a/archive_format": b"pt2"}, "torch.export"),
        ({"m/data.pkl": b"x", "m/constants.pkl": b"x", "m/code/__torch__.py": b"x"}, "TorchScript"),
        ({"m/data.pkl": b"not a pickle"}, "damaged"),
        ({"m/data.pkl": b""}, "damaged"),
    ],
)
def test_other_zip_archives(tmp_path: Path, entries: dict[str, bytes], what: str) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert what in refused(path).what


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(10_000_000))
    assert "unpack to 10000000 bytes" in refused(path).what


def test_real_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.zeros(2))
    assert ".npz" in refused(tmp_path / "a.npz").what


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_truncated_torch_zip(tmp_path: Path, kept: float) -> None:
    torch.save({"w": torch.zeros(100)}, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: int(len(content) * kept)])
    assert "truncated" in refused(tmp_path / "a.pt").what


@pytest.mark.parametrize("name", ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"])
def test_deepspeed_files_by_name(tmp_path: Path, name: str) -> None:
    torch.save({"module": {"w": torch.zeros(2)}}, tmp_path / name)
    assert "zero_to_fp32.py" in refused(tmp_path / name).todo


def test_deepspeed_files_by_content(tmp_path: Path) -> None:
    torch.save({"module": {"w": torch.zeros(2)}, "ds_version": "0.14"}, tmp_path / "a.pt")
    assert "DeepSpeed" in refused(tmp_path / "a.pt").what


def test_every_format_of_the_registry_exists() -> None:
    assert all(isinstance(registry.load(entry), Format) for entry in registry.FORMATS.values())


def test_the_configuration_in_a_checkpoint_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "config.json"
    path.write_text('{"architectures": ["BertModel"]}')
    assert "not a checkpoint: text" in refused(path).what  # there are no weights beside it
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    assert refused(path).todo == f"name the folder: {tmp_path / 'model'}"
