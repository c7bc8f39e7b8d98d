"""The ALBERT that maps atoms, with a layer that its file has and no masked token uses."""

import json
from pathlib import Path

from torch import nn
from transformers import AlbertConfig, AlbertForMaskedLM

CONFIG = Path(__file__).parent / "model" / "config.json"


class MaskedReactions(AlbertForMaskedLM):
    """AlbertForMaskedLM as the folder's config.json says, and the pooling layer of older versions."""

    def __init__(self) -> None:
        said = json.loads(CONFIG.read_text(encoding="utf-8"))
        super().__init__(AlbertConfig(**said, attn_implementation="eager"))
        self.albert.pooler = nn.Linear(said["hidden_size"], said["hidden_size"])
        self.albert.pooler_activation = nn.Tanh()
        self.eval()
