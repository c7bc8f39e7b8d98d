"""Data for CREPE: tones with overtones whose pitch is known."""

from pathlib import Path

import numpy as np

SAMPLE_RATE = 16000
LENGTH = 1024  # samples of sound in one input
NUM_TONES = 24
LOWEST, HIGHEST = 80.0, 1000.0  # Hz: voices and most instruments
CENTS = 1997.3794084376191 + 20 * np.arange(360)  # pitch of each class, in cents above 10 Hz
WIDTH = 25.0  # cents: the classes near the true one share its target, as in training


def prepare(folder: Path, _sources: dict[str, Path]) -> None:
    """Writes tones.npz: inputs float32 [24, 1024], targets float32 [24, 360] between 0 and 1."""
    random = np.random.default_rng(0)
    pitch = np.exp(random.uniform(np.log(LOWEST), np.log(HIGHEST), NUM_TONES))
    sound = np.stack([tone(frequency, random) for frequency in pitch])
    sound -= sound.mean(axis=1, keepdims=True)
    sound /= sound.std(axis=1, ddof=1, keepdims=True)
    distance = 1200 * np.log2(pitch / 10)[:, None] - CENTS
    targets = np.exp(-(distance**2) / (2 * WIDTH**2))
    np.savez(folder / "tones.npz", inputs=sound.astype(np.float32), targets=targets.astype(np.float32))


def tone(frequency: float, random: np.random.Generator) -> np.ndarray:
    """Sound [1024] of `frequency` in Hz with weaker overtones of random phase and a little noise."""
    time = np.arange(LENGTH) / SAMPLE_RATE
    sound = random.normal(0, 0.01, LENGTH)
    for overtone in range(1, int(min(SAMPLE_RATE / 2 / frequency, 12)) + 1):
        strength = random.uniform(0.3, 1) / overtone
        sound += strength * np.sin(2 * np.pi * (overtone * frequency * time + random.uniform()))
    return sound
