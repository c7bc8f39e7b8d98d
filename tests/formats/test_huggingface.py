"""Hugging Face directories: configuration as data, what the run left beside the weights, nothing run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from samdiag.errors import CannotDecide
from samdiag.formats import open_checkpoint
from tests.formats.folders import write_shards

BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    save_file({"w": torch.ones(2)}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(BERT))
    return path


def optimizer_state(**settings: Any) -> dict[str, Any]:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    weight.square().sum().backward()
    optimizer.step()
    optimizer.param_groups[0].update(settings)
    return optimizer.state_dict()


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_the_configuration_is_data(folder: Path, name: str) -> None:
    checkpoint = open_checkpoint(folder / name)
    assert checkpoint.config == BERT
    assert checkpoint.weights().keys() == {"w"}
    (said,) = checkpoint.embedded
    assert said.source == "config.json"
    assert said.document == {"model": {"transformers": "BertForSequenceClassification"}, "loss": "model"}
    assert checkpoint.format == ("safetensors" if name else "huggingface")


@pytest.mark.parametrize(
    ("config", "document"),
    [
        ({"architectures": ["BertModel"]}, {"model": {"transformers": "BertModel"}}),
        (
            {"architectures": ["GPT2LMHeadModel", "X"]},
            {"model": {"transformers": "GPT2LMHeadModel"}, "loss": "model"},
        ),
        ({"architectures": ["LlamaForCausalLM"]}, {"model": {"transformers": "LlamaForCausalLM"}, "loss": "model"}),
        ({"architectures": ["os:system"]}, None),
        ({"architectures": ["A.B"]}, None),
        ({"architectures": ["A" * 101]}, None),
        ({"architectures": []}, None),
        ({"architectures": "BertModel"}, None),
        ({"architectures": [3]}, None),
        ({"model_type": "bert"}, None),
    ],
)
def test_the_model_that_a_configuration_names(folder: Path, config: Any, document: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert [said.document for said in open_checkpoint(folder).embedded] == ([document] if document else [])


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"a": NaN}', "not valid JSON"),
        ('{"a": 1, "a": 2}', "a key twice"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "at most 64 levels"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ("", "empty"),
    ],
)
def test_a_bad_configuration_is_a_note(folder: Path, text: str, note: str) -> None:
    (folder / "config.json").write_text(text)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config is None
    assert any(note in line for line in checkpoint.notes)


def test_a_configuration_is_bounded_and_not_linked_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("samdiag.formats.huggingface.MAX_CONFIG_BYTES", 10)
        assert any("more than the 10" in note for note in open_checkpoint(folder).notes)
    (folder / "config.json").rename(folder.parent / "secret.json")
    (folder / "config.json").symlink_to(folder.parent / "secret.json")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config is None
    assert any("link out of its folder" in note for note in checkpoint.notes)


def test_code_that_a_configuration_names_is_never_run(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**BERT, "auto_map": {"AutoModel": "modeling.Evil"}}))
    (folder / "modeling.py").write_text("raise SystemExit('was run')")
    assert any("auto_map" in note for note in open_checkpoint(folder).notes)


@pytest.mark.parametrize("name", ["optimizer.pt", "optimizer.bin"])
def test_hints_of_the_optimizer_beside(folder: Path, name: str) -> None:
    torch.save(optimizer_state(rho=0.07, adaptive=True), folder / name)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.hints["sam.rho"].value == 0.07
    assert checkpoint.hints["sam.lr"].value == 0.1
    assert checkpoint.hints["sam.momentum"].value == 0.9
    assert checkpoint.hints["sam.weight_decay"].value == 0.01
    assert checkpoint.hints["sam.variant"].value == "asam"
    velocity = checkpoint.velocity()
    assert velocity is not None
    assert torch.equal(velocity.tensors[0], torch.full((2,), 2.01))  # type: ignore[arg-type]
    assert not checkpoint.adam
    assert open_checkpoint(folder / "model.safetensors").hints == checkpoint.hints


def test_the_trainers_state(folder: Path) -> None:
    (folder / "trainer_state.json").write_text('{"train_batch_size": 16, "global_step": 40, "log_history": []}')
    checkpoint = open_checkpoint(folder)
    assert checkpoint.hints["sam.batch_size"].value == 16
    assert checkpoint.hints["sam.batch_size"].source == "trainer_state.json"
    assert any("step 40" in note for note in checkpoint.notes)
    (folder / "trainer_state.json").write_text('{"train_batch_size": true, "global_step": "x"}')
    assert open_checkpoint(folder).hints == {}


def test_the_schedule_alone_gives_the_last_learning_rate(folder: Path) -> None:
    torch.save({"_last_lr": [0.02], "base_lrs": [0.1]}, folder / "scheduler.pt")
    assert open_checkpoint(folder).hints["sam.lr"].value == 0.02
    torch.save({"_last_lr": [0.0], "base_lrs": [0.1]}, folder / "scheduler.pt")
    assert open_checkpoint(folder).hints == {}
    torch.save(optimizer_state(), folder / "optimizer.pt")
    assert open_checkpoint(folder).hints["sam.lr"].value == 0.1


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch was-run",)


def test_pickles_beside_are_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin"):
        torch.save(Runs(), folder / name)
    checkpoint = open_checkpoint(folder)
    assert not (folder / "was-run").exists()
    assert checkpoint.hints == {}
    assert any("optimizer.pt is ignored" in note and "wants to run" in note for note in checkpoint.notes)
    assert any("training_args.bin" in note and "never read" in note for note in checkpoint.notes)


def test_what_lies_beside_and_is_damaged_is_a_note(folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"x")
    torch.save([1], folder / "scheduler.pt")
    (folder / "trainer_state.json").write_text("{")
    checkpoint = open_checkpoint(folder)
    assert any("optimizer.pt is ignored" in note for note in checkpoint.notes)
    assert any("trainer_state.json is ignored" in note for note in checkpoint.notes)
    torch.save({"a": 1}, folder / "optimizer.pt")
    assert any("param_groups" in note for note in open_checkpoint(folder).notes)


def test_safetensors_are_read_before_torch_files(folder: Path) -> None:
    torch.save({"old": torch.ones(1)}, folder / "pytorch_model.bin")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.weights().keys() == {"w"}
    assert any("pytorch_model.bin" in note for note in checkpoint.notes)


def test_a_file_beside_somebodys_own_configuration(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    (folder / "config.json").write_text('{"lr": 0.1}')
    torch.save(optimizer_state(), folder / "optimizer.pt")
    checkpoint = open_checkpoint(folder / "mine.safetensors")
    assert checkpoint.config is None
    assert checkpoint.hints == {}


def test_the_fingerprint_knows_what_was_read(folder: Path) -> None:
    found = [open_checkpoint(folder).fingerprint]
    (folder / "README.md").write_text("x")
    assert open_checkpoint(folder).fingerprint == found[0]
    (folder / "config.json").write_text("{}")
    found.append(open_checkpoint(folder).fingerprint)
    torch.save(optimizer_state(), folder / "optimizer.pt")
    found.append(open_checkpoint(folder).fingerprint)
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    found.append(open_checkpoint(folder).fingerprint)
    assert len(set(found)) == 4


def test_an_index_of_another_name_is_found(tmp_path: Path) -> None:
    write_shards(tmp_path, {"x-1.safetensors": {"w": torch.ones(1)}}).rename(tmp_path / "x.safetensors.index.json")
    assert open_checkpoint(tmp_path).weights().keys() == {"w"}


def test_sentence_transformers_open_as_their_transformer(folder: Path) -> None:
    whole = folder.parent / "sentences"
    whole.mkdir()
    (whole / "modules.json").write_text("[]")
    folder.rename(whole / "0_Transformer")
    checkpoint = open_checkpoint(whole)
    assert checkpoint.config == BERT
    assert checkpoint.path == whole / "0_Transformer"


def test_a_name_of_weights_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(Exception, match="is a folder"):
        open_checkpoint(tmp_path)


def test_weights_that_are_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CannotDecide, match="no weights"):
        open_checkpoint(folder)


def test_the_folder_may_be_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    checkpoint = open_checkpoint(".")
    assert checkpoint.path.name == "model"
    assert checkpoint.weights().keys() == {"w"}


def test_a_model_of_timm_on_the_hub(folder: Path) -> None:
    config = {"architecture": "resnet18", "num_classes": 7, "pretrained_cfg": {}, "model_args": {"in_chans": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    (said,) = open_checkpoint(folder).embedded
    assert said.document == {"model": {"timm": "resnet18", "args": {"num_classes": 7, "in_chans": 1}}}
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "hf_hub:evil/x"}))
    assert open_checkpoint(folder).embedded == ()


def test_final_weights_beside_the_checkpoints_of_their_run(folder: Path) -> None:
    (folder / "checkpoint-10").mkdir()
    assert any("checkpoint-10" in note for note in open_checkpoint(folder).notes)


def test_the_index_of_another_framework_is_none(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5.index.json").write_text('{"weight_map": {}}')
    (tmp_path / "tf_model-00001-of-00001.h5").write_bytes(b"x")
    with pytest.raises(CannotDecide, match="Keras"):
        open_checkpoint(tmp_path)
