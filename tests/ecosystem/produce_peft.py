"""Adapter directories of PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.ecosystem.networks import kept
from tests.ecosystem.produce_transformers import bert
from tests.ecosystem.produced import Made, Producer


def _adapted(**config: Any) -> Any:
    model = bert()
    from peft import LoraConfig, TaskType, get_peft_model

    adapted = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query"], **config))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    return adapted


def _saved(**options: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        adapted = _adapted()
        from peft import get_peft_model_state_dict

        adapted.save_pretrained(folder, **options)
        return Made(path=folder, weights=kept(get_peft_model_state_dict(adapted)))

    return make


READS = "adapter_config.json"
PRODUCERS = [
    Producer(
        format="PEFT adapter directory",
        kind="peft-adapter",
        how="LoRA, `PeftModel.save_pretrained`",
        make=_saved(),
        reads=READS,
        library="peft",
    ),
    Producer(
        format="PEFT adapter directory",
        kind="peft-adapter",
        how="LoRA, `save_pretrained(safe_serialization=False)`",
        make=_saved(safe_serialization=False),
        reads=READS,
        library="peft",
    ),
]
