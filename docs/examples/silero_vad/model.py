"""Silero VAD, 16 kHz: whether somebody speaks in each 32 ms of sound."""

import torch
from torch import Tensor, nn
from torch.nn import functional

STEP = 512  # samples of sound that each answer is about
CONTEXT = 64  # samples before them that the network also hears


class SileroVAD(nn.Module):
    """Logits [samples, steps] of speech for sound [samples, steps, 64 + 512] at 16 kHz."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)  # cosines and sines: no weights to train
        self.stft_conv.weight.requires_grad_(False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, sound: Tensor) -> Tensor:
        features = self.features(sound.flatten(0, 1)).unflatten(0, sound.shape[:2])
        state, logits = None, []
        for step in features.unbind(1):
            state = self.lstm_cell(step, state)
            logits.append(self.final_conv(functional.relu(state[0]).unsqueeze(2)).flatten(1))
        return torch.cat(logits, 1)

    def features(self, sound: Tensor) -> Tensor:
        """One vector [pieces, 128] for each piece of sound [pieces, 576]."""
        real, imaginary = self.stft_conv(functional.pad(sound, (0, CONTEXT), mode="reflect").unsqueeze(1)).chunk(2, 1)
        hidden = torch.sqrt(real.square() + imaginary.square())
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = functional.relu(layer(hidden))
        return hidden.squeeze(2)
