"""Folders that are not read say what they are and what to name or convert."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from samdiag import registry
from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.formats import open_checkpoint
from samdiag.formats.folder import FolderFormat


def refused(path: Path, kind: type[SamdiagError]) -> SamdiagError:
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert path.name in caught.value.what
    assert "\n" not in caught.value.what + caught.value.todo
    return caught.value


@pytest.mark.parametrize(
    ("names", "what", "todo"),
    [
        (["zero_to_fp32.py"], "DeepSpeed", "deepspeed.utils.zero_to_fp32"),
        (["latest", "global_step10/"], "DeepSpeed", "deepspeed.utils.zero_to_fp32"),
        (["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed", "zero_to_fp32"),
        (["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed", "zero_to_fp32"),
        (["latest_checkpointed_iteration.txt", "iter_0000010/"], "Megatron", "convert.py"),
        (["model_rank_0.pt", "model_rank_1.pt"], "one file per rank", "torch.distributed.checkpoint.save"),
        (["pytorch_model_fsdp_rank0.bin", "pytorch_model_fsdp_rank1.bin"], "one file per rank", "full_state_dict"),
        (["saved_model.pb", "variables/"], "SavedModel", "state_dict"),
        (["checkpoint", "model.ckpt-10.index", "model.ckpt-10.data-00000-of-00001"], "TensorFlow", "state_dict"),
        (["_CHECKPOINT_METADATA", "manifest.ocdbt"], "Orbax", "safetensors"),
        (["Manifest.json", "Data/"], "Core ML", "exported"),
        (["tf_model.h5", "config.json"], "Keras", "state_dict"),
        (["flax_model.msgpack", "config.json"], "Flax", "from_flax"),
        (["model.Q4_K_M.gguf"], "GGUF", "converted from"),
        (["model.onnx", "config.json"], "ONNX", "exported"),
        (["model.engine"], "TensorRT", "exported"),
        (["model.pte"], "ExecuTorch", "exported"),
        (["weights.npz", "config.json"], "NumPy", "state_dict"),
        (["config.json", "tokenizer.json"], "config.json and no weights", "model.safetensors"),
    ],
)
def test_refused_by_kind(tmp_path: Path, names: list[str], what: str, todo: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_bytes(b"x")
    error = refused(folder, CannotDecide)
    assert what in error.what
    assert todo in error.todo


def test_a_folder_of_several_checkpoints_names_them(tmp_path: Path) -> None:
    for name in ("a.pt", "b.ckpt", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".metadata").write_bytes(b"x")
    (tmp_path / "e").mkdir()
    error = refused(tmp_path, UsageError)
    assert error.todo == "name one in it: a.pt, b.ckpt, d"


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "without a checkpoint" in refused(tmp_path, UsageError).what


def test_the_checkpoints_of_a_trainer_are_named_in_order(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
    error = refused(tmp_path, UsageError)
    assert "checkpoint-3, checkpoint-20, checkpoint-100" in error.what
    assert error.todo.endswith("checkpoint-100")


def test_the_models_of_a_pipeline_are_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    error = refused(tmp_path, UsageError)
    assert "diffusers" in error.what
    assert "unet" in error.todo


def test_names_from_the_folder_are_escaped(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "\x1b[31m.pt")
    assert "\x1b" not in refused(tmp_path, UsageError).todo


def test_a_folder_of_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / str(number)).write_bytes(b"")
    monkeypatch.setattr("samdiag.formats.folder.MAX_NAMES", 3)
    assert "more than 3 files" in refused(tmp_path, CannotDecide).what


def test_every_folder_format_of_the_registry_exists() -> None:
    assert all(isinstance(registry.load(entry), FolderFormat) for entry in registry.FOLDERS.values())
