"""Resemblyzer's voice encoder: who speaks, as a vector; with the loss that it was trained with (GE2E)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class VoiceEncoder(nn.Module):
    """Unit vectors [..., 256] of spectrograms [..., frames, 40]."""

    def __init__(self) -> None:
        super().__init__()
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))  # of the loss, trained with the network
        self.similarity_bias = nn.Parameter(torch.tensor([-5.0]))
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, spectrograms: Tensor) -> Tensor:
        states, _ = self.lstm(spectrograms.flatten(0, -3))
        vectors = functional.normalize(self.linear(states[:, -1]).relu(), dim=1)
        return vectors.unflatten(0, spectrograms.shape[:-2])


def scores(model: VoiceEncoder, batch: Tensor) -> Tensor:
    """How well each utterance [speakers, utterances] fits each of the speakers: [speakers, utterances, speakers].

    An utterance is compared with the mean of its own speaker's other utterances.

    Source: Wan et al. 2018, Generalized End-to-End Loss for Speaker Verification, eq. 5, 8 and 9.
    """
    vectors = model(batch)
    count = vectors.shape[1]
    total = vectors.sum(1)
    cosines = torch.einsum("sud,td->sut", vectors, functional.normalize(total, dim=1))
    others = functional.normalize(total.unsqueeze(1) - vectors, dim=2)
    own = (vectors * others).sum(2)
    same = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device).unsqueeze(1).expand(-1, count, -1)
    cosines = torch.where(same, own.unsqueeze(2), cosines)
    return cosines * model.similarity_weight + model.similarity_bias
