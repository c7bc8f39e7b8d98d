"""Recordings of speech from the tests of PocketSphinx: 16 kHz, 16 bit, one channel, with and without a WAVE header."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16000


def read_sound(path: Path) -> np.ndarray:
    """Sound [samples] as float32 between −1 and 1."""
    if path.name.endswith(".wav"):
        with wave.open(str(path), "rb") as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                raise ValueError(f"{path.name} is not 16 kHz, one channel, 16 bit")
            content = file.readframes(file.getnframes())
    else:
        content = path.read_bytes()
    return np.frombuffer(content, dtype="<i2").astype(np.float32) / 32768
