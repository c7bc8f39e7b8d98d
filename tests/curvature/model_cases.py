"""Models as people have them, small: one feature each, as problems on fixed random data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from samdiag.types import Problem
from tests.curvature.attention_cases import (
    SEQUENCE,
    around,
    encoder_layer,
    hf_bert,
    hf_flash,
    hf_flex,
    hf_gpt2,
    hf_llama,
    large_vocabulary,
    masked_encoder,
    multihead_attention,
    of_tokens,
    padded_encoder,
    sdpa,
)

# ---------------------------------------------------------------- recurrent


def lstm() -> Problem:
    return around(
        lambda: nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True), SEQUENCE, lambda r, x: r(x)[0].mean(dim=1)
    )


def gru() -> Problem:
    return around(lambda: nn.GRU(8, 8, batch_first=True), SEQUENCE, lambda r, x: r(x)[0][:, -1])


def rnn() -> Problem:
    return around(lambda: nn.RNN(8, 8, batch_first=True), SEQUENCE, lambda r, x: r(x)[0][:, -1])


def packed_lstm() -> Problem:
    def run(lstm: Any, x: Tensor) -> Tensor:
        lengths = torch.tensor([2 + i % 3 for i in range(len(x))])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return lstm(packed)[1][0][-1]

    return around(lambda: nn.LSTM(8, 8, batch_first=True), SEQUENCE, run)


# ---------------------------------------------------------------- normalisation


def _normed(norm: Callable[[], nn.Module]) -> Callable[[], Problem]:
    def body() -> nn.Module:
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), norm(), nn.Tanh(), nn.Flatten(), nn.Linear(64, 8))
        for _ in range(3):
            layers.train()(torch.randn(16, 1, 6, 6))  # running statistics that are not the initial ones
        return layers

    return lambda: around(body, (1, 6, 6))


def sync_batch_norm() -> Problem:
    problem = _normed(lambda: nn.BatchNorm2d(4))()
    nn.SyncBatchNorm.convert_sync_batchnorm(problem.model)
    return problem


# ---------------------------------------------------------------- reparametrised weights


def old_weight_norm() -> Problem:
    return around(lambda: nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(8, 8)), nn.Tanh()))


def new_weight_norm() -> Problem:
    return around(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Tanh()))


def old_spectral_norm() -> Problem:
    return around(lambda: nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(8, 8)), nn.Tanh()))


def new_spectral_norm() -> Problem:
    return around(lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Tanh()))


# ---------------------------------------------------------------- how the model is run


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))


def reentrant_checkpoint() -> Problem:
    def run(body: Any, x: Tensor) -> Tensor:
        return checkpoint(body, x.requires_grad_(), use_reentrant=True)

    return around(_mlp, apply=run)


def plain_checkpoint() -> Problem:
    return around(_mlp, apply=lambda body, x: checkpoint(body, x, use_reentrant=False))


def compiled() -> Problem:
    problem = around(_mlp)
    return Problem(model=torch.compile(problem.model, backend="aot_eager"), loss=problem.loss, batches=problem.batches)


def compiled_inside() -> Problem:
    return around(lambda: nn.Sequential(torch.compile(_mlp(), backend="aot_eager"), nn.Tanh()))


def compiled_in_place() -> Problem:
    problem = around(_mlp)
    problem.model.compile(backend="aot_eager")
    return problem


def compiled_function() -> Problem:
    smooth = torch.compile(lambda x: torch.sin(x) * x, backend="aot_eager")
    return around(_mlp, apply=lambda body, x: smooth(body(x)))


def autocast_inside() -> Problem:
    def run(body: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out: Tensor = body(x)
        return out.to(x.dtype)

    return around(_mlp, apply=run)


def bfloat16_weights() -> Problem:
    problem = around(_mlp)
    problem.model.bfloat16()
    return problem


def data_parallel() -> Problem:
    problem = around(_mlp)
    return Problem(model=nn.DataParallel(problem.model), loss=problem.loss, batches=problem.batches)


def gradient_hooks() -> Problem:
    problem = around(_mlp)
    problem.model.head.weight.register_hook(lambda g: 0.1 * g)
    problem.model.body[0].register_full_backward_hook(
        lambda _m, grads, _g: tuple(None if g is None else 3 * g for g in grads)
    )
    return problem


def dropout() -> Problem:
    return around(lambda: nn.Sequential(_mlp(), nn.Dropout(0.5)))


# ---------------------------------------------------------------- parameters


class LowRank(nn.Module):
    """A frozen layer and a trained low-rank change of it, as LoRA has."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(8, 8).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def low_rank() -> Problem:
    problem = around(LowRank)
    problem.model.head.requires_grad_(False)
    return problem


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def tied_and_unused() -> Problem:
    return around(Tied)


def sparse_embedding() -> Problem:
    model = lambda: nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(12, 5))  # noqa: E731
    return of_tokens(model, 9, lambda m, b: F.cross_entropy(m(b), b[:, 0] % 5), length=3)


# ---------------------------------------------------------------- functions


def max_pool() -> Problem:
    def body() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8)
        )

    return around(body, (1, 6, 6))


class Cube(torch.autograd.Function):
    """x³ with a backward of plain operations: right to any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


def right_function() -> Problem:
    return around(_mlp, apply=lambda body, x: Cube.apply(body(x)))


CASES: dict[str, Callable[[], Problem]] = {
    f.__name__: f
    for f in (
        sdpa,
        multihead_attention,
        encoder_layer,
        masked_encoder,
        padded_encoder,
        large_vocabulary,
        hf_gpt2,
        hf_llama,
        hf_bert,
        hf_flex,
        hf_flash,
        lstm,
        gru,
        rnn,
        packed_lstm,
        sync_batch_norm,
        old_weight_norm,
        new_weight_norm,
        old_spectral_norm,
        new_spectral_norm,
        reentrant_checkpoint,
        plain_checkpoint,
        compiled,
        compiled_inside,
        compiled_in_place,
        compiled_function,
        autocast_inside,
        bfloat16_weights,
        data_parallel,
        gradient_hooks,
        dropout,
        low_rank,
        tied_and_unused,
        sparse_embedding,
        max_pool,
        right_function,
    )
} | {
    "batch_norm": _normed(lambda: nn.BatchNorm2d(4)),
    "instance_norm": _normed(lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
    "group_norm": _normed(lambda: nn.GroupNorm(2, 4)),
    "layer_norm": _normed(lambda: nn.LayerNorm((4, 4, 4))),
}

PLAIN: dict[str, Callable[[], Problem]] = {  # the same function written without the feature, where torch alone needs it
    "autocast_inside": lambda: around(_mlp),
    "hf_flex": hf_gpt2,
    "hf_flash": hf_gpt2,
    "gradient_hooks": lambda: around(_mlp),
    "compiled_function": lambda: around(_mlp, apply=lambda body, x: torch.sin(body(x)) * body(x)),
}
