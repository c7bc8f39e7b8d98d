"""PEFT adapter directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from samdiag.errors import CannotDecide
from samdiag.formats import open_checkpoint

LORA = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "../base", "target_modules": ["q"]}
NAME = "base_model.model.q.lora_A.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({NAME: torch.ones(4, 2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    return tmp_path


@pytest.mark.parametrize("name", ["", "adapter_model.safetensors"])
def test_the_adapter_alone(folder: Path, name: str) -> None:
    checkpoint = open_checkpoint(folder / name)
    assert checkpoint.adapter == LORA
    assert checkpoint.config is None
    assert checkpoint.weights().keys() == {NAME}
    assert checkpoint.format == ("safetensors" if name else "peft-adapter")


def test_torch_weights_and_the_trainers_state(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({NAME: torch.ones(4, 2)}, folder / "adapter_model.bin")
    (folder / "trainer_state.json").write_text('{"train_batch_size": 2}')
    checkpoint = open_checkpoint(folder)
    assert checkpoint.weights().keys() == {NAME}
    assert checkpoint.hints["sam.batch_size"].value == 2


@pytest.mark.parametrize(
    ("text", "what"), [("{}", "no peft_type"), ('{"peft_type": 3}', "no peft_type"), ("[", "not valid JSON")]
)
def test_a_bad_configuration(folder: Path, text: str, what: str) -> None:
    (folder / "adapter_config.json").write_text(text)
    for path in (folder, folder / "adapter_model.safetensors"):
        with pytest.raises(CannotDecide, match=what):
            open_checkpoint(path)


def test_weights_that_are_missing(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CannotDecide, match="lacks the adapter's weights"):
        open_checkpoint(folder)


def test_the_fingerprint_knows_the_configuration(folder: Path) -> None:
    before = open_checkpoint(folder).fingerprint
    (folder / "adapter_config.json").write_text(json.dumps({**LORA, "lora_alpha": 8}))
    assert open_checkpoint(folder).fingerprint != before


def test_a_whole_model_beside_the_configuration_alone(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.adapter is None
    assert checkpoint.format == "huggingface"
