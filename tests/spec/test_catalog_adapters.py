"""PEFT adapters over a base model that the project names: the real library, and the Hessian over the adapter alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from samdiag.errors import UsageError
from samdiag.formats import open_checkpoint
from samdiag.spec.build import build
from tests.spec.catalog_truth import check_ends, no_network  # noqa: F401  (a fixture)
from tests.torchvision_ops import declare

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning")
VOCABULARY = 11


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    declare()


def base_model() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def adapted(model: Any, **changed: Any) -> Any:
    """A LoRA on `model` by PEFT itself, its B matrices away from their initial zero."""
    import peft

    said = {"r": 1, "lora_alpha": 3, "target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_dropout": 0.1}
    found = peft.get_peft_model(model, peft.LoraConfig(**{**said, "task_type": "CAUSAL_LM", **changed}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in found.named_parameters():
            if "lora_" in name:
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return found


@pytest.fixture
def work(folder: Path) -> Path:
    """A base directory, an adapter directory, tokens, and a samdiag.toml that names them."""
    base_model().save_pretrained(folder / "base")
    adapted(base_model()).save_pretrained(folder / "adapter")
    generator = torch.Generator().manual_seed(2)
    save_file({"input_ids": torch.randint(VOCABULARY, (16, 6), generator=generator)}, folder / "tokens.safetensors")
    (folder / "samdiag.toml").write_text(
        'loss = "causal_lm"\nmodel = { transformers = "auto", base = "base" }\n'
        'data = { tensors = "tokens.safetensors" }\nsam = { rho = 0.05 }\n'
    )
    return folder


def test_the_hessian_is_that_over_the_adapter(work: Path, resolved) -> None:
    checkpoint = open_checkpoint("adapter")
    assert checkpoint.format == "peft-adapter"
    built = build(resolved(checkpoint), checkpoint)
    problem = built.problem
    stored = load_file(work / "adapter" / "adapter_model.safetensors")
    trainable = {name: value for name, value in problem.model.named_parameters() if value.requires_grad}
    assert {name.replace(".default.", ".") for name in trainable} == set(stored)
    assert all(torch.equal(value, stored[name.replace(".default.", ".")]) for name, value in trainable.items())
    assert sum(value.numel() for value in trainable.values()) == 8 + 24
    check_ends(problem)


def test_the_adapted_model_is_pefts_own(work: Path, resolved) -> None:
    import peft

    checkpoint = open_checkpoint("adapter")
    problem = build(resolved(checkpoint), checkpoint).problem
    theirs = peft.PeftModel.from_pretrained(base_model(), "adapter").eval()
    tokens = load_file("tokens.safetensors")["input_ids"]
    ours = problem.model.eval()(input_ids=tokens).logits
    assert torch.allclose(ours, theirs(input_ids=tokens).logits, atol=1e-6)
    assert not torch.allclose(ours, base_model().eval()(input_ids=tokens).logits, atol=1e-2)


def test_a_base_from_the_users_own_factory(work: Path, resolved) -> None:
    (work / "own.py").write_text(
        "import transformers\ndef model():\n    return transformers.GPT2LMHeadModel.from_pretrained('base')\n"
    )
    checkpoint = open_checkpoint("adapter")
    own = build(resolved(checkpoint, {"model": "own.py:model"}), checkpoint).problem
    named = build(resolved(checkpoint), checkpoint).problem
    assert all(torch.equal(a, b) for a, b in zip(own.model.parameters(), named.model.parameters(), strict=True))


def test_a_head_that_the_adapter_brings_may_be_missing_in_the_base(folder: Path, resolved) -> None:
    import peft
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertForPreTraining(config).save_pretrained("base")
    bare = transformers.BertForSequenceClassification(config)
    said = peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    trained = peft.get_peft_model(bare, said)
    trained.save_pretrained("adapter")
    save_file({"input_ids": torch.randint(VOCABULARY, (8, 5)), "labels": torch.randint(2, (8,))}, "rows.safetensors")
    (folder / "samdiag.toml").write_text(
        'loss = "cross_entropy"\ndata = { tensors = "rows.safetensors" }\n'
        'model = { transformers = "BertForSequenceClassification", base = "base" }\n'
    )
    checkpoint = open_checkpoint("adapter")
    built = build(resolved(checkpoint), checkpoint)
    names = [name for name, value in built.problem.model.named_parameters() if value.requires_grad]
    assert sorted(name for name in names if "classifier" in name)
    weight = next(
        value
        for name, value in built.problem.model.named_parameters()
        if "classifier" in name and name.endswith("default.weight")
    )
    assert torch.equal(weight, bare.classifier.modules_to_save.default.weight)
    assert any("of the base that the model does not have: cls." in note for note in built.notes)


def complaint(resolved: Any, **changes: Any) -> UsageError:
    checkpoint = open_checkpoint("adapter")
    with pytest.raises(UsageError) as caught:
        build(resolved(checkpoint, **changes), checkpoint)
    assert "\n" not in caught.value.what
    return caught.value


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"peft_type": "IA3"}, "of the type 'IA3', and only LORA is supported"),
        ({"init_lora_weights": "pissa"}, "changed the base model's weights"),
        ({"trainable_token_indices": [1]}, "has trainable_token_indices, which is not supported"),
        ({"megatron_config": {"a": 1}}, "has megatron_config, which is not supported"),
        ({"layer_replication": [[0, 1]]}, "has layer_replication"),
        ({"target_modules": "(a+)+$"}, "it repeats a group"),
        ({"target_modules": ".*.*.*.*.*x"}, "repeats more than 4 times"),
        ({"target_modules": "a" * 2000}, "2000 characters"),
        ({"target_modules": "("}, "no regular expression"),
        ({"rank_pattern": {"(c|c)*": 3}}, "rank_pattern"),
        ({"target_modules": ["nowhere"]}, "Target modules {'nowhere'} not found"),
        ({"r": 3}, "of another shape"),
        ({"target_modules": ["c_attn", "c_fc"]}, "missing: base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(*, work: Path, resolved, change, what) -> None:
    file = work / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert what in complaint(resolved).what


def test_tensors_that_the_model_has_no_place_for(work: Path, resolved) -> None:
    file = work / "adapter" / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.nowhere.lora_A.weight": torch.zeros(2)}, file)
    assert "not in the model: base_model.model.nowhere" in complaint(resolved).what


def test_where_the_base_is_must_be_said_and_only_for_adapters(work: Path, resolved) -> None:
    spec = (work / "samdiag.toml").read_text()
    (work / "samdiag.toml").write_text(spec.replace(', base = "base"', ""))
    assert "nothing says where its base model's weights are" in complaint(resolved).what
    (work / "samdiag.toml").write_text(spec.replace('base = "base"', 'base = "adapter"'))
    assert "is itself an adapter" in complaint(resolved).what
    (work / "samdiag.toml").write_text(spec)
    checkpoint = open_checkpoint("base")
    with pytest.raises(UsageError, match="is for adapters"):
        build(resolved(checkpoint), checkpoint)


def test_peft_that_is_not_installed(work: Path, resolved, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises ModuleNotFoundError
    error = complaint(resolved)
    assert error.what == "the adapter needs peft, which is not installed"
    assert error.todo == "pip install 'samdiag[peft]'"
