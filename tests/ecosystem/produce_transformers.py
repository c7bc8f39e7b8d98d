"""Directories of transformers, its Trainer, accelerate and huggingface_hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.ecosystem.networks import kept, loss_of, network
from tests.ecosystem.produced import Made, Producer
from tests.torchvision_ops import declare

NAMED = {"model": {"transformers": "BertForSequenceClassification"}, "loss": "model"}
SGD = {"sam.lr": 0.125, "sam.momentum": 0.75, "sam.weight_decay": 0.0625, "sam.dampening": 0.0, "sam.nesterov": False}


def bert() -> Any:
    """A tiny classifier of texts."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    declare()
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=3, **sizes))


def save_pretrained(folder: Path) -> Made:
    model = bert()
    model.save_pretrained(folder)
    return Made(path=folder, weights=kept(model.state_dict()), hints=NAMED)


def sharded(folder: Path) -> Made:
    model = bert()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return Made(path=folder, weights=kept(model.state_dict()), hints=NAMED)


def index(folder: Path) -> Made:
    made = sharded(folder)
    return Made(path=folder / "model.safetensors.index.json", weights=made.weights, hints=NAMED)


def half(folder: Path) -> Made:
    model = bert().bfloat16()
    model.save_pretrained(folder)
    return Made(path=folder / "model.safetensors", weights=kept(model.state_dict()), hints=NAMED)


def tied(folder: Path) -> Made:
    declare()
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    model.save_pretrained(folder)
    weights = kept(model.state_dict())
    del weights["lm_head.weight"]  # it is transformer.wte.weight, and stored once
    return Made(path=folder, weights=weights, hints={"model": {"transformers": "GPT2LMHeadModel"}, "loss": "model"})


def trainer(folder: Path) -> Made:
    model = bert()
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=3,
        save_steps=3,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    texts = torch.randint(50, (12, 8), generator=torch.Generator().manual_seed(0))
    samples = [{"input_ids": text, "attention_mask": torch.ones(8).long(), "labels": text.sum() % 3} for text in texts]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.75, weight_decay=0.0625)
    Trainer(model=model, args=arguments, train_dataset=samples, optimizers=(optimizer, None)).train()  # type: ignore[arg-type]
    step = folder / "checkpoint-3"
    assert (step / "training_args.bin").exists()
    return Made(path=step, weights=kept(model.state_dict()), hints={**NAMED, **SGD, "sam.batch_size": 4})


def accelerate_state(folder: Path) -> Made:
    declare()
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = network()
    prepared, optimizer = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.75, weight_decay=0.0625)
    )
    loss_of(prepared)()
    optimizer.step()
    accelerator.save_state(str(folder))
    return Made(path=folder, weights=kept(model.state_dict()), hints=SGD)


def hub_shards(folder: Path) -> Made:
    from huggingface_hub import save_torch_model

    model: nn.Module = network()
    save_torch_model(model, folder, max_shard_size=400)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return Made(path=folder, weights=kept(model.state_dict()))


def hub_torch_shards(folder: Path) -> Made:
    from huggingface_hub import save_torch_model

    model: nn.Module = network()
    save_torch_model(model, folder, max_shard_size=400, safe_serialization=False)
    assert len(list(folder.glob("pytorch_model-*.bin"))) > 1
    return Made(path=folder, weights=kept(model.state_dict()))


OPTIMIZER = "lr, momentum, weight decay, momentum buffers"


def timm_hub(folder: Path) -> Made:
    declare()
    import timm
    from timm.models import save_for_hf

    model = timm.create_model("test_resnet", num_classes=7)
    save_for_hf(model, folder, safe_serialization=True)
    hints = {"model": {"timm": "test_resnet", "args": {"num_classes": 7, "in_chans": 3, "global_pool": "avg"}}}
    return Made(path=folder, weights=kept(model.state_dict()), hints=hints)


CONFIGURED = "model and loss from config.json"
DIRECTORY = "Hugging Face directory"
SHARDED = "sharded safetensors"
PRODUCERS = [
    Producer(
        format=DIRECTORY,
        kind="huggingface",
        how="`save_pretrained`",
        make=save_pretrained,
        reads=CONFIGURED,
        library="transformers",
    ),
    Producer(
        format=DIRECTORY,
        kind="huggingface",
        how="`save_pretrained`, tied weights",
        make=tied,
        reads=CONFIGURED,
        library="transformers",
    ),
    Producer(
        format=DIRECTORY,
        kind="safetensors",
        how="`save_pretrained` in bfloat16, its model.safetensors named",
        make=half,
        reads=CONFIGURED,
        library="transformers",
    ),
    Producer(
        format=DIRECTORY,
        kind="huggingface",
        how="`Trainer.train`, its checkpoint-3",
        make=trainer,
        reads=f"{CONFIGURED}; {OPTIMIZER} from optimizer.pt; batch size from trainer_state.json",
        library="transformers",
    ),
    Producer(
        format=DIRECTORY,
        kind="huggingface",
        how="`Accelerator.save_state`",
        make=accelerate_state,
        reads=f"{OPTIMIZER} from optimizer.bin",
        library="accelerate",
    ),
    Producer(
        format=DIRECTORY,
        kind="huggingface",
        how="`save_for_hf`",
        make=timm_hub,
        reads="model from config.json",
        library="timm",
    ),
    Producer(
        format=SHARDED,
        kind="huggingface",
        how='`save_pretrained(max_shard_size="10KB")`',
        make=sharded,
        reads=CONFIGURED,
        library="transformers",
    ),
    Producer(
        format=SHARDED,
        kind="sharded",
        how="the same, its index named",
        make=index,
        reads=CONFIGURED,
        library="transformers",
    ),
    Producer(
        format=SHARDED,
        kind="huggingface",
        how="`save_torch_model(max_shard_size=…)`",
        make=hub_shards,
        reads="–",
        library="huggingface_hub",
    ),
    Producer(
        format="sharded pytorch_model.bin",
        kind="huggingface",
        how="`save_torch_model(safe_serialization=False)`",
        make=hub_torch_shards,
        reads="–",
        library="huggingface_hub",
    ),
]
