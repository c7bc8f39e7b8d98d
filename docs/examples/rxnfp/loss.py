"""The loss of masked tokens alone: whether one reaction follows another was part of the training as a formality."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def masked(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the masked tokens."""
    found: Any = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits = found.prediction_logits.flatten(0, 1)
    return functional.cross_entropy(logits, batch["labels"].flatten(), ignore_index=-100)
