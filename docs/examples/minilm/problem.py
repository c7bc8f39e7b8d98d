"""all-MiniLM-L6-v2 on words and their definitions, with the loss that it was trained with."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertModel

from samdiag import Problem

HERE = Path(__file__).parent
SCALE = 20.0  # of the cosines in the loss, as in training
BATCH = 16  # pairs: each word is told apart from so many definitions


def problem() -> Problem:
    """BertModel with the folder's configuration, contrastive loss, 32 pairs in batches of 16."""
    config = json.loads((HERE / "model" / "config.json").read_text(encoding="utf-8"))
    model = BertModel(BertConfig(**config, attn_implementation="eager")).eval()
    places = model.embeddings.position_ids  # 0, 1, 2, …: in the file, and no longer saved by today's transformers
    model.embeddings.register_buffer("position_ids", places, persistent=True)
    pairs = load_file(HERE / "pairs.safetensors")
    batches = list(zip(pairs["word_ids"].split(BATCH), pairs["text_ids"].split(BATCH), strict=True))
    return Problem(model=model, loss=loss, batches=batches, loss_lower_bound=0.0, batch_size_is_training=False)


def loss(model: BertModel, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of finding each word's own definition among all of the batch, and the other way round."""
    words, texts = (embed(model, numbered) for numbered in batch)
    scores = SCALE * words @ texts.T
    own = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


def embed(model: BertModel, numbered: Tensor) -> Tensor:
    """Unit vectors [texts, 384]: the mean over the tokens of each text."""
    mask = numbered != 0
    states = model(input_ids=numbered, attention_mask=mask.long()).last_hidden_state
    mean = (states * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
    return functional.normalize(mean, dim=1)
