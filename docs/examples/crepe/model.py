"""CREPE (tiny): the pitch of a piece of sound."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (1, 128, 16, 16, 16, 32, 64)
NUM_BINS = 360  # 20 cents each, from 31.7 Hz up


class Crepe(nn.Module):
    """Logits [samples, 360], one for each pitch, of sound [samples, 1024] at 16 kHz."""

    def __init__(self) -> None:
        super().__init__()
        for number, (before, after) in enumerate(pairwise(CHANNELS), start=1):
            kernel, stride = ((512, 1), (4, 1)) if number == 1 else ((64, 1), (1, 1))
            self.add_module(f"conv{number}", nn.Conv2d(before, after, kernel, stride))
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(after, eps=1e-3))  # as it was trained, with Keras
        self.classifier = nn.Linear(256, NUM_BINS)

    def forward(self, sound: Tensor) -> Tensor:
        hidden = sound[:, None, :, None]
        for number in range(1, len(CHANNELS)):
            hidden = functional.pad(hidden, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            hidden = functional.relu(self.get_submodule(f"conv{number}")(hidden))
            hidden = functional.max_pool2d(self.get_submodule(f"conv{number}_BN")(hidden), (2, 1))
        logits: Tensor = self.classifier(hidden.transpose(1, 2).flatten(1))
        return logits
