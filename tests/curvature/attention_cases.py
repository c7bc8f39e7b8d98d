"""Models with attention, small: layers of torch, language models, and models of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.types import Problem
from tests.networks import _seeded, classification, cross_entropy
from tests.torchvision_ops import declare

SEQUENCE = (4, 8)  # tokens, width


class Around(nn.Module):
    """A body [n, *] → [n, 8], a head of five classes behind it."""

    def __init__(self, body: Callable[[], nn.Module], apply: Callable[[Any, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.body, self.head, self.apply_body = body(), nn.Linear(8, 5), apply

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x) if self.apply_body is None else self.apply_body(self.body, x)
        return self.head(torch.tanh(h))


def around(body: Callable[[], nn.Module], shape: tuple[int, ...] = (8,), apply: Any = None) -> Problem:
    return Problem(
        model=_seeded(lambda: Around(body, apply)), loss=cross_entropy, batches=classification(shape, 5, (6, 4))
    )


def of_tokens(model: Callable[[], nn.Module], vocabulary: int, loss: Any, length: int = 5) -> Problem:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(0, vocabulary, (n, length), generator=generator) for n in (3, 2)]
    return Problem(model=_seeded(model), loss=loss, batches=batches)


# ---------------------------------------------------------------- attention


class CausalAttention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.qkv, self.options = nn.Linear(8, 24), options

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.view(*t.shape[:2], 2, 4).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, **self.options)
        return out.transpose(1, 2).flatten(2).mean(dim=1)


def sdpa() -> Problem:
    return around(CausalAttention, SEQUENCE)


def multihead_attention() -> Problem:
    return around(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        SEQUENCE,
        lambda a, x: a(x, x, x, need_weights=False)[0].mean(dim=1),
    )


def encoder_layer() -> Problem:
    return around(
        lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), SEQUENCE, lambda a, x: a(x).mean(dim=1)
    )


def masked_encoder() -> Problem:
    def run(encoder: Any, x: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return encoder(x, mask=causal, is_causal=True).mean(dim=1)

    def body() -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    return around(body, SEQUENCE, run)


def padded_encoder() -> Problem:
    def run(encoder: Any, x: Tensor) -> Tensor:
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, -1] = True
        return encoder(x, src_key_padding_mask=padding)[:, :-1].mean(dim=1)

    return around(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 1), SEQUENCE, run
    )


# ---------------------------------------------------------------- language models


class SmallLanguageModel(nn.Module):
    """Tied embeddings, one causal block, logits over a vocabulary large enough for the lean loss."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(vocabulary, 8), CausalAttentionTokens()
        self.out = nn.Linear(8, vocabulary, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mix(self.embed(tokens))))


class CausalAttentionTokens(CausalAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.view(*t.shape[:2], 2, 4).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        return x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def next_token(model: nn.Module, tokens: Tensor) -> Tensor:
    logits = model(tokens)
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))


def large_vocabulary() -> Problem:
    return of_tokens(lambda: SmallLanguageModel(4100), 4100, next_token)


def _language(name: str, config: str, loss: Any, **settings: Any) -> Problem:
    import pytest

    declare()  # transformers looks at images with torchvision
    transformers = pytest.importorskip("transformers")
    chosen = getattr(transformers, config)(**settings)
    return of_tokens(lambda: getattr(transformers, name)(chosen), 50, loss)


def own_loss(model: Any, tokens: Tensor) -> Tensor:
    value: Tensor = model(input_ids=tokens, labels=tokens).loss
    return value


def hf_gpt2(**more: Any) -> Problem:
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 8}
    return _language("GPT2LMHeadModel", "GPT2Config", own_loss, bos_token_id=0, eos_token_id=0, **sizes, **more)


def hf_llama() -> Problem:
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    return _language("LlamaForCausalLM", "LlamaConfig", own_loss, vocab_size=50, num_key_value_heads=1, **sizes)


def hf_bert() -> Problem:
    def masked(model: Any, tokens: Tensor) -> Tensor:
        hidden = torch.zeros_like(tokens, dtype=torch.bool)
        hidden[:, ::2] = True
        value: Tensor = model(input_ids=tokens.masked_fill(hidden, 3), labels=tokens.masked_fill(~hidden, -100)).loss
        return value

    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    return _language("BertForMaskedLM", "BertConfig", masked, vocab_size=50, max_position_embeddings=8, **sizes)


def hf_flex() -> Problem:
    problem = hf_gpt2()
    problem.model.config._attn_implementation = "flex_attention"
    return problem


def hf_flash() -> Problem:
    problem = hf_gpt2()
    problem.model.config._attn_implementation = "flash_attention_2"
    return problem
