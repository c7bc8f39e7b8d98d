"""AttaCut (characters): where words begin in Thai text, which is written without spaces between them."""

from torch import Tensor, nn

NUM_CHARACTERS = 139
KERNELS = {1: (3, 1), 2: (5, 3), 3: (9, 2)}  # size and dilation of each convolution


class Convolution(nn.Module):
    """A convolution over the text that keeps its length."""

    def __init__(self, size: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(48, 196, size, dilation=dilation, padding=dilation * (size // 2))

    def forward(self, text: Tensor) -> Tensor:
        found: Tensor = self.conv(text)
        return found


class AttaCut(nn.Module):
    """Logits [texts, length] of a word beginning at each character, for numbered characters [texts, length]."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(NUM_CHARACTERS, 48, padding_idx=0)
        for number, (size, dilation) in KERNELS.items():
            self.add_module(f"conv{number}", Convolution(size, dilation))
        self.linear1 = nn.Linear(196, 32)
        self.linear2 = nn.Linear(32, 1)

    def forward(self, text: Tensor) -> Tensor:
        vectors = self.embeddings(text).transpose(1, 2)
        found = [self.get_submodule(f"conv{number}")(vectors) for number in KERNELS]
        strongest = found[0].maximum(found[1]).maximum(found[2]).transpose(1, 2)
        logits: Tensor = self.linear2(self.linear1(strongest).relu())
        return logits.squeeze(2)
