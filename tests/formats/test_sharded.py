"""Sharded checkpoints: read shard by shard, and refused where index and shards disagree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.formats import open_checkpoint
from tests.formats.folders import write_shards

A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
TENSORS = {A: {"module.a": torch.arange(6.0).reshape(2, 3)}, B: {"module.b": torch.ones(4, dtype=torch.bfloat16)}}


def refused(path: Path, kind: type[SamdiagError] = CannotDecide) -> SamdiagError:
    with pytest.raises(kind) as caught:
        open_checkpoint(path).weights()
    assert "\n" not in caught.value.what + caught.value.todo
    return caught.value


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("by_index", [True, False])
def test_folder_and_index_give_all_tensors(tmp_path: Path, suffix: str, by_index: bool) -> None:
    shards = {name.replace(".safetensors", suffix): tensors for name, tensors in TENSORS.items()}
    index = write_shards(tmp_path, shards)
    checkpoint = open_checkpoint(index if by_index else tmp_path)
    weights = checkpoint.weights()
    assert checkpoint.format == ("sharded" if by_index else "huggingface")
    assert weights.keys() == {"a", "b"}  # the prefix that all shards share is gone
    assert torch.equal(weights["a"], TENSORS[A]["module.a"])
    assert weights["b"].dtype == torch.bfloat16


def test_a_prefix_of_one_shard_alone_stays(tmp_path: Path) -> None:
    write_shards(tmp_path, {A: {"module.a": torch.ones(2)}, B: {"b": torch.ones(2)}})
    assert open_checkpoint(tmp_path).weights().keys() == {"module.a", "b"}


def test_safetensors_shards_open_without_torch(tmp_path: Path) -> None:
    index = write_shards(tmp_path, TENSORS)
    code = f"import sys; from samdiag.formats import open_checkpoint; open_checkpoint({str(index)!r})"
    code += "; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_the_fingerprint_knows_every_file(tmp_path: Path) -> None:
    found = set()
    for change in range(3):
        shards = {A: {"a": torch.full((2,), float(change == 1))}, B: {"b": torch.full((2,), float(change == 2))}}
        found.add(open_checkpoint(write_shards(tmp_path, shards)).fingerprint)
    assert len(found) == 3


@pytest.mark.parametrize(
    "name",
    [
        "../a.safetensors",
        "/etc/passwd",
        "sub/a.safetensors",
        "..",
        "",
        "a\0b",
        "C:a",
        "a\\b",
        "x" * 300,
        "\ud800",
        7,
        None,
    ],
)
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: Any) -> None:
    write_shards(tmp_path / "m", {A: {"a": torch.ones(1)}}, weight_map={"a": name})
    assert "no bare file name" in refused(tmp_path / "m").what


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "m", TENSORS)
    (tmp_path / "m" / A).rename(tmp_path / "elsewhere.safetensors")
    (tmp_path / "m" / A).symlink_to(tmp_path / "elsewhere.safetensors")
    assert "link out of its folder" in refused(tmp_path / "m").what


@pytest.mark.parametrize("inside", ["", "unet"])
def test_the_links_of_the_hub_cache_are_followed(tmp_path: Path, inside: str) -> None:
    snapshot = tmp_path / "models--x" / "snapshots" / "abc" / inside
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write_shards(snapshot, TENSORS)
    for number, name in enumerate(os.listdir(snapshot)):
        (snapshot / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), snapshot))
    assert open_checkpoint(snapshot).weights().keys() == {"a", "b"}


def test_missing_shards_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS)
    (tmp_path / B).unlink()
    error = refused(tmp_path)
    assert "missing" in error.what
    assert B in error.what


@pytest.mark.parametrize(
    ("shards", "weight_map", "what"),
    [
        ({A: {"a": torch.ones(1)}, B: {"b": torch.ones(1)}}, {"a": A, "b": A}, "lacks tensors"),
        ({A: {"a": torch.ones(1), "b": torch.ones(1)}, B: {"b": torch.ones(1)}}, {"a": A, "b": B}, "index places in"),
        ({A: {"a": torch.ones(1), "c": torch.ones(1)}}, {"a": A}, "not in the index"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_index_and_shards_must_agree(
    tmp_path: Path, shards: dict[str, Any], weight_map: dict[str, str], what: str, suffix: str
) -> None:
    shards = {name.replace(".safetensors", suffix): tensors for name, tensors in shards.items()}
    weight_map = {name: file.replace(".safetensors", suffix) for name, file in weight_map.items()}
    assert what in refused(write_shards(tmp_path, shards, weight_map=weight_map)).what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{}", "no table weight_map"),
        ('{"weight_map": []}', "no table weight_map"),
        ('{"weight_map": {}}', "no table weight_map"),
        ('{"weight_map": {"a": "b", "a": "c"}}', "names a key twice"),
        ('{"weight_map": {"a": NaN}}', "not valid JSON"),
        ('{"weight_map": ' + "[" * 100_000, "nested too deeply"),
        ('{"weight_map": {"' + "n" * 2000 + '": "b"}}', "2000 characters"),
        ('{"weight_map": {"a": "b"}, "x": ' + "[" * 70 + "]" * 70 + "}", "at most 64 levels"),
    ],
)
def test_a_bad_index(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert what in refused(tmp_path / "model.safetensors.index.json").what


def test_an_index_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_shards(tmp_path, TENSORS)
    for name, bound, what in (
        ("MAX_INDEX_BYTES", 10, "more than the 10 allowed"),
        ("MAX_TENSORS", 1, "claims 2 tensors"),
        ("MAX_SHARDS", 1, "more than 1 files"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"samdiag.formats.sharded.{name}", bound)
            assert what in refused(index).what


def test_a_shard_that_changed_since_it_was_checked(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS)
    checkpoint = open_checkpoint(tmp_path)
    with (tmp_path / B).open("ab") as file:
        file.write(b"x")
    with pytest.raises(CannotDecide, match="changed"):
        checkpoint.weights()


def test_a_damaged_shard_and_a_shard_of_something_else(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS)
    (tmp_path / B).write_bytes((tmp_path / B).read_bytes()[:-3])
    assert "truncated" in refused(tmp_path).what
    write_shards(tmp_path, {"model-1.bin": {"a": torch.ones(1), "b": torch.ones(1)}})
    torch.save({"a": torch.ones(1), "b": 3}, tmp_path / "model-1.bin")
    assert "b" in refused(tmp_path / "pytorch_model.bin.index.json").what
    (tmp_path / "model-1.bin").write_bytes(b"hello")
    assert "not" in refused(tmp_path / "pytorch_model.bin.index.json").what


def test_there_are_no_averaged_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no EMA weights"):
        open_checkpoint(write_shards(tmp_path, TENSORS)).weights("ema")


def test_one_shard_by_itself_says_so(tmp_path: Path) -> None:
    write_shards(tmp_path, TENSORS)
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    checkpoint = open_checkpoint(tmp_path / A)
    assert checkpoint.config is not None
    assert any("one shard of several" in note for note in checkpoint.notes)


@pytest.mark.parametrize(("stem", "suffix"), [("model", ".safetensors"), ("pytorch_model", ".bin")])
def test_the_weights_of_one_shard_alone_are_refused(tmp_path: Path, stem: str, suffix: str) -> None:
    first, second = (f"{stem}-0000{number}-of-00002{suffix}" for number in (1, 2))
    index = write_shards(tmp_path, {first: TENSORS[A], second: TENSORS[B]})
    shard = tmp_path / first
    assert open_checkpoint(shard).tensor_infos().keys() == {"a"}  # what `samdiag info` shows
    error = refused(shard, UsageError)
    assert "is one shard of 2" in error.what
    assert error.todo.startswith("name the folder or its index")
    assert index.name in error.todo
    index.unlink()
    assert open_checkpoint(shard).weights().keys() == {"a"}


def test_a_shard_that_the_index_does_not_list_is_a_file_like_any_other(tmp_path: Path) -> None:
    index = write_shards(tmp_path, TENSORS)
    index.write_text(index.read_text().replace(A, "other.safetensors"))
    assert open_checkpoint(tmp_path / A).weights().keys() == {"a"}
