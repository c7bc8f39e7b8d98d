"""What of a checkpoint's disk state is complete, and what is seen of a folder without opening anything."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdiag.fleet import settled
from samdiag.fleet.settled import missing
from samdiag.fleet.sightings import Kind, Sighting, glance, is_temporary, look
from tests.fleet.live_run import safetensors
from tests.formats.folders import pieces, write_distributed, write_shards


def seen(folder: Path) -> Sighting:
    """The one checkpoint in a folder."""
    [found] = look(str(folder))
    return found


def names(folder: Path) -> list[str]:
    return sorted(os.path.relpath(sighting.path, folder) for sighting in look(str(folder)))


def torch_bytes(**how: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(300)}, buffer, **how)
    return buffer.getvalue()


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("length", range(len(safetensors(4))))
def test_no_beginning_of_a_safetensors_file_is_complete(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(4)[:length])
    assert missing(seen(tmp_path)) is not None
    path.write_bytes(safetensors(4))
    assert missing(seen(tmp_path)) is None
    path.write_bytes(safetensors(4) + b"\0")
    assert missing(seen(tmp_path)) is not None


def test_no_beginning_of_a_zip_of_torch_is_complete(tmp_path: Path) -> None:
    whole, path = torch_bytes(), tmp_path / "a.pt"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert missing(seen(tmp_path)) is not None, length
    path.write_bytes(whole)
    assert missing(seen(tmp_path)) is None


def test_a_file_of_the_old_layout_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(torch_bytes(_use_new_zipfile_serialization=False)[:200])
    assert missing(seen(tmp_path)) is None


def test_the_reason_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(torch_bytes()[:600])
    assert missing(seen(tmp_path)) == "a.pt has no end yet: the directory of its zip archive is missing"
    (tmp_path / "a.pt").write_bytes(b"")
    assert missing(seen(tmp_path)) == "a.pt is empty"


def test_a_file_that_has_changed_since_it_was_seen_is_being_written(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors(4))
    before = seen(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(safetensors(8))
    assert missing(before) == settled.CHANGING
    (tmp_path / "a.safetensors").unlink()
    assert missing(before) == "it cannot be read (No such file or directory)"


# ---------------------------------------------------------------- folders


def shards(folder: Path) -> Path:
    write_shards(folder, {f"model-0000{n}-of-00002.safetensors": {f"w{n}": torch.ones(3)} for n in (1, 2)})
    return folder


def distributed(folder: Path) -> Path:
    weights = torch.ones(4, 2)
    return write_distributed(folder, pieces("w", weights, 2), {"w": weights.shape})


def huggingface(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors(4))
    (folder / "optimizer.pt").write_bytes(torch_bytes())
    (folder / "config.json").write_text("{}")
    return folder


def adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(safetensors(4))
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


def fsdp(folder: Path) -> Path:
    folder.mkdir()
    distributed(folder / "pytorch_model_fsdp_0")
    distributed(folder / "optimizer_0")
    return folder


NEEDED = [
    (shards, "model.safetensors.index.json"),
    (shards, "model-00001-of-00002.safetensors"),
    (shards, "model-00002-of-00002.safetensors"),
    (distributed, ".metadata"),
    (distributed, "__0_0.distcp"),
    (huggingface, "model.safetensors"),
    (huggingface, "optimizer.pt"),
    (adapter, "adapter_model.safetensors"),
    (fsdp, "pytorch_model_fsdp_0/.metadata"),
    (fsdp, "pytorch_model_fsdp_0/__0_0.distcp"),
    (fsdp, "optimizer_0/.metadata"),
]


@pytest.mark.parametrize(("make", "name"), NEEDED)
def test_a_folder_waits_for_each_of_its_files_and_for_the_whole_of_it(
    tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    file = make(tmp_path / "checkpoint-7") / name
    whole = file.read_bytes()
    found = seen(tmp_path)
    assert found.kind is Kind.FOLDER
    assert missing(found) is None
    file.write_bytes(whole[: len(whole) // 2])
    assert seen(tmp_path).stamp != found.stamp
    assert missing(seen(tmp_path)) is not None
    file.write_bytes(whole)
    assert missing(seen(tmp_path)) is None


@pytest.mark.parametrize(("make", "name"), [case for case in NEEDED if case[1] != "optimizer.pt"])
def test_a_folder_without_one_of_its_files_is_incomplete(
    tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    (make(tmp_path / "checkpoint-7") / name).unlink()
    for found in look(str(tmp_path)):  # or it is not seen at all
        assert missing(found) is not None


def test_an_index_among_other_checkpoints_waits_for_its_shards(tmp_path: Path) -> None:
    shards(tmp_path)
    found = seen(tmp_path)
    assert (found.kind, missing(found)) == (Kind.INDEX, None)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "not there yet: model-00002-of-00002.safetensors" in str(missing(seen(tmp_path)))
    assert missing(found) != settled.CHANGING


def test_an_index_that_names_other_files_than_the_usual_is_believed(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "part.safetensors"}}))
    assert "part.safetensors" in str(missing(seen(tmp_path)))


# ---------------------------------------------------------------- what is seen


def test_what_a_run_keeps_beside_its_weights_is_no_checkpoint(tmp_path: Path) -> None:
    for name in (
        *("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "scaler.pt", "notes.txt"),
        *("model-00001-of-00002.safetensors", "zero_pp_rank_0_mp_rank_00_optim_states.pt", ".hidden.pt"),
    ):
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path) == []
    for name in ("step-1.pt", "last.ckpt", "model_best.pth.tar", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path) == ["last.ckpt", "model_best.pth.tar", "pytorch_model.bin", "step-1.pt"]


def test_the_folders_below_are_looked_into(tmp_path: Path) -> None:
    deep = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    deep.mkdir(parents=True)
    (deep / "epoch=1-step=20.ckpt").write_bytes(b"x")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pt").write_bytes(b"x")
    assert names(tmp_path) == ["lightning_logs/version_0/checkpoints/epoch=1-step=20.ckpt"]


def test_the_final_model_and_the_checkpoints_inside_its_folder_are_all_seen(tmp_path: Path) -> None:
    huggingface(tmp_path / "output")
    huggingface(tmp_path / "output" / "checkpoint-500")
    assert names(tmp_path) == ["output", "output/checkpoint-500"]
    assert names(tmp_path / "output") == ["checkpoint-500", "model.safetensors"]


def test_weights_called_model_beside_others_are_one_of_several(tmp_path: Path) -> None:
    for name in ("model.safetensors", "step-1.safetensors"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_bytes(safetensors(4))
    assert names(tmp_path) == ["run/model.safetensors", "run/step-1.safetensors"]


def test_the_working_folder_has_no_dot_in_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pt").write_bytes(b"x")
    assert [sighting.path for sighting in look(".")] == ["a.pt"]


@pytest.mark.parametrize("make", [shards, distributed, huggingface, fsdp])
def test_a_glance_sees_what_a_look_sees(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path / "checkpoint-7")
    shards(tmp_path)
    (tmp_path / "a.pt").write_bytes(b"x")
    found = look(str(tmp_path))
    assert len(found) == 3
    assert [glance(sighting) for sighting in found] == [sighting.stamp for sighting in found]


@pytest.mark.parametrize(
    ("name", "temporary"),
    [
        (".tmp-5", True),
        ("a.pt.tmp", True),
        ("a.tmp.1234", True),
        ("tmp-checkpoint-5", True),
        ("a.safetensors.incomplete", True),
        ("a.partial", True),
        ("temperature-1.pt", False),
        ("partial-2.pt", False),
        ("checkpoint-500", False),
    ],
)
def test_which_names_are_temporary(name: str, temporary: bool) -> None:
    assert is_temporary(name) is temporary
