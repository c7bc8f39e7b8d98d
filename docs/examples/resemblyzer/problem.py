"""The voice encoder on recordings of several speakers."""

from pathlib import Path

import numpy as np
import torch
from model import VoiceEncoder, scores
from torch import Tensor
from torch.nn import functional

from samdiag import Problem

HERE = Path(__file__).parent


def problem() -> Problem:
    """Batches [speakers, 8 utterances, 80 frames, 40], told apart by the softmax form of GE2E."""
    spectrograms = torch.from_numpy(np.load(HERE / "voices.npz")["inputs"])
    return Problem(
        model=VoiceEncoder(),
        loss=loss,
        batches=list(spectrograms),
        num_samples=lambda batch: batch.shape[0] * batch.shape[1],
        loss_lower_bound=0.0,
        batch_size_is_training=False,
    )


def loss(model: VoiceEncoder, batch: Tensor) -> Tensor:
    """Cross-entropy of naming the speaker of every utterance (GE2E, eq. 6)."""
    found = scores(model, batch)
    speakers = torch.arange(len(found), device=found.device).repeat_interleave(found.shape[1])
    return functional.cross_entropy(found.flatten(0, 1), speakers)
