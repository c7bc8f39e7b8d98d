"""The networks of the benchmarks, built from torch alone: an MLP, ResNets, an LSTM, a GPT and a vision transformer.

The large ones have the layers and the parameter counts of the published architectures; their weights are random.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(*widths: int) -> nn.Sequential:
    """Fully connected layers of these widths with ReLU between them: [batch, widths[0]] → [batch, widths[-1]]."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """One residual block of a ResNet: two 3×3 convolutions, or 1×1, 3×3, 1×1 where it is a bottleneck."""

    def __init__(self, before: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        after = 4 * width if bottleneck else width  # 4: the expansion of the published bottleneck
        if bottleneck:
            convolutions = [(before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1)]
        else:
            convolutions = [(before, width, 3, stride), (width, width, 3, 1)]
        layers: list[nn.Module] = []
        for inputs, outputs, size, step in convolutions:
            conv = nn.Conv2d(inputs, outputs, size, stride=step, padding=size // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.branch = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))
        self.width = after

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(self.branch(images) + self.shortcut(images))


class ResNet(nn.Module):
    """A ResNet with BatchNorm: [batch, 3, height, width] → [batch, classes] logits.

    Source: He et al., Deep Residual Learning for Image Recognition, table 1; the stem for large images is theirs, the
        one for small images a single strided 3×3 convolution.
    """

    def __init__(
        self, widths: tuple[int, ...], depths: tuple[int, ...], *, classes: int, bottleneck: bool, large_images: bool
    ) -> None:
        super().__init__()
        first = 64 if large_images else widths[0]
        size, pool = (7, nn.MaxPool2d(3, 2, 1)) if large_images else (3, nn.Identity())
        conv = nn.Conv2d(3, first, size, stride=2, padding=size // 2, bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(first), nn.ReLU(), pool)
        blocks: list[nn.Module] = []
        before = first
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                block = Residual(before, width, 2 if i == 0 and stage > 0 else 1, bottleneck=bottleneck)
                before = block.width
                blocks.append(block)
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(images)).mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    """One pre-norm transformer layer with fused attention: [batch, length, width] → the same shape."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        mixed = self.mix(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        # the tanh form is GPT-2's
        y: Tensor = x + self.narrow(functional.gelu(self.wide(self.norm2(x)), approximate="tanh"))
        return y


class GPT(nn.Module):
    """A decoder with learned positions and tied embeddings: tokens [batch, length] → logits [batch, length, v].

    Source: Radford et al., Language Models are Unsupervised Multitask Learners (GPT-2).
    """

    def __init__(self, *, vocabulary: int, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)  # GPT-2's
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.blocks(self.tokens(tokens) + self.positions(places))
        return functional.linear(self.norm(hidden), self.tokens.weight)


class VisionTransformer(nn.Module):
    """A ViT with a class token: [batch, 3, side, side] → [batch, classes] logits.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, table 1 (GELU in its tanh form).
    """

    def __init__(self, *, side: int, patch: int, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        sequence = torch.cat([self.first.expand(len(images), -1, -1), patches], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(sequence)[:, 0]))
        return logits


class Recurrent(nn.Module):
    """An LSTM over the rows of an image: [batch, length, inputs] → [batch, classes] logits."""

    def __init__(self, *, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(inputs, width, batch_first=True), nn.Linear(width, classes)

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(rows)[0][:, -1])
        return logits


def resnet50() -> ResNet:
    """ResNet-50 for 224×224 images: 25.6 million parameters."""
    return ResNet((64, 128, 256, 512), (3, 4, 6, 3), classes=1000, bottleneck=True, large_images=True)


def vit_b16() -> VisionTransformer:
    """ViT-B/16 for 224×224 images: 86.6 million parameters."""
    return VisionTransformer(side=224, patch=16, width=768, depth=12, heads=12, classes=1000)


def gpt2() -> GPT:
    """GPT-2 small: 124 million parameters."""
    return GPT(vocabulary=50257, context=1024, width=768, depth=12, heads=12)


class MeanCrossEntropy(nn.CrossEntropyLoss):
    """The mean cross-entropy over all leading dimensions: (logits […, classes], targets […]) → 0-dim."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
