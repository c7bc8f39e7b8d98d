"""The training step that a name says, and the one that a checkpoint says itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from samdiag.formats import open_checkpoint
from samdiag.formats.steps import Unit, named_step, run_folder, step_in_name
from samdiag.preparing import info_of

SAID = {
    "step-000100.pt": 100,
    "iter_2000.pth": 2000,
    "iteration=7.pt": 7,
    "step_1e4.pt": 10_000,
    "step_10k_ema.pt": 10_000,
    "global_step1000": 1000,
    "GlobalStep-12.pt": 12,
    "step1000-unsharded": 1000,
    "step-20240131.pt": 20_240_131,  # the word is clear
    "checkpoint-500": 500,
    "checkpoint-500/": 500,
    "checkpoint-12.pth.tar": 12,
    "ckpt_100.safetensors": 100,
    "model_0001.pt": 1,
    "000100.pt": 100,
    "500": 500,
    "weights-3.safetensors.index.json": 3,
    "epoch=3-step=500.ckpt": 500,
    "step=500-epoch=3.ckpt": 500,
    "epoch=3-step=500-v1.ckpt": 500,
    "epoch_12_acc=0.93.pt": 12,
    "Epoch10.pt": 10,
    "runs/checkpoint-500/model.safetensors": 500,
    "epoch_3/best.pt": 3,
    "step_5/checkpoint_9.pt": 9,
}
SILENT = [
    *("last.pt", "model_best.pth.tar", "best-acc=0.93.pt", "ckpt_0.93.pt", "step=100.5.pt", "lr1e-3.pt", "seed_1.pt"),
    *("2024-01-31_12-00-00.pt", "20240131.pt", "ckpt_20240131-153000.pt", "checkpoint-2024-01-31.pt"),
    *("checkpoint_1700000000.pt", "resnet50.pt", "vit_base_patch16_224.pth", "model_224px.pt", "footstep3.pt"),
    *("max_steps=500.pt", "num_iters_100.pt", "runs/max_steps_500/last.pt", "run_3/best.pt", "model_224/last.pt"),
    *("step_" + "9" * 40 + ".pt", "step_3e5f.pt", "step.pt", "", "/"),
]


@pytest.mark.parametrize(("name", "step"), SAID.items())
def test_a_name_says_the_step(name: str, step: int) -> None:
    assert step_in_name(name) == step


@pytest.mark.parametrize("name", SILENT)
def test_what_is_no_step_is_not_taken_for_one(name: str) -> None:
    assert step_in_name(name) is None


def test_what_a_name_counts_is_known() -> None:
    found = [named_step(name) for name in ("step-1", "checkpoint-1", "epoch-1", "step-1/last.pt")]
    assert [one.unit for one in found if one] == [Unit.STEP, Unit.SAVED, Unit.EPOCH, Unit.STEP]
    assert [one.in_folder for one in found if one] == [False, False, False, True]


def test_a_run_is_the_folder_around_its_steps() -> None:
    assert run_folder("runs/a/step-1.pt") == run_folder("runs/a/checkpoint-1/weights.pt") == "runs/a"


def step_of(path: Path) -> int | None:
    return info_of(open_checkpoint(path)).step


MODEL = {"w": torch.zeros(2)}


@pytest.mark.parametrize(
    ("saved", "name", "step"),
    [
        ({"model": MODEL, "step": 7}, "a.pt", 7),
        ({"model": MODEL, "step": 7}, "step-9.pt", 7),
        ({"model": MODEL, "global_step": torch.tensor(8), "epoch": 2}, "a.pt", 8),
        ({"model": MODEL, "iteration": 6.0, "epoch": 2}, "a.pt", 6),
        ({"model": MODEL, "epoch": 2}, "last.pt", 2),
        ({"model": MODEL, "epoch": 2}, "epoch=3.pt", 2),
        ({"model": MODEL, "epoch": 2}, "step-9.pt", 9),  # a step says more than an epoch
        ({"model": MODEL, "epoch": 2}, "checkpoint-9.pt", 9),
        ({"model": MODEL}, "step-9.pt", 9),
        ({"model": MODEL, "step": -1}, "a.pt", None),
        ({"model": MODEL, "step": True, "iteration": 0.5, "epoch": "best"}, "a.pt", None),
        ({"model": MODEL, "step": torch.zeros(2)}, "a.pt", None),
        ({"model": MODEL, "step": 2**64}, "a.pt", None),
        ({"w": torch.zeros(2), "step": torch.tensor(5)}, "a.pt", None),  # a buffer of the model
        ({"state_dict": MODEL, "epoch": 3, "global_step": 500, "pytorch-lightning_version": "2.5"}, "last.ckpt", 500),
        ({"state_dict": MODEL, "arch": "x", "optimizer": {}, "version": 2, "epoch": 4}, "last.pth.tar", 4),
    ],
)
def test_a_file_of_torch_says_its_step(tmp_path: Path, saved: dict[str, Any], name: str, step: int | None) -> None:
    torch.save(saved, tmp_path / name)
    assert step_of(tmp_path / name) == step


def test_the_metadata_of_safetensors_say_its_step(tmp_path: Path) -> None:
    save_file(MODEL, tmp_path / "step-9.safetensors", {"global_step": "70", "step": "x"})
    assert step_of(tmp_path / "step-9.safetensors") == 70


@pytest.mark.parametrize("weights", ["model.safetensors", "adapter_model.safetensors"])
def test_the_state_of_a_trainer_says_the_step(tmp_path: Path, weights: str) -> None:
    save_file(MODEL, tmp_path / weights)
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 40}))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if weights.startswith("model"):
        (tmp_path / "adapter_config.json").unlink()
    assert step_of(tmp_path) == 40
    assert step_of(tmp_path / weights) == 40


def test_a_distributed_folder_says_its_step(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": MODEL, "step": 30, "epoch": 1}, checkpoint_id=tmp_path / "a", no_dist=True)
        dcp.save({"model": MODEL, "epoch": 1}, checkpoint_id=tmp_path / "step-5", no_dist=True)
    assert step_of(tmp_path / "a") == 30
    assert step_of(tmp_path / "step-5") == 5
