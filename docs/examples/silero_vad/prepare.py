"""Data for Silero VAD: pieces of speech, and pieces of noise, hum and the pauses of the same recordings."""

from pathlib import Path

import numpy as np
from speech import read_sound

STEP, CONTEXT = 512, 64  # samples: what each answer is about, and what the network hears before
STEPS = 8  # a quarter of a second in one input
LOUD, QUIET = 0.1, 0.02  # of the loudest step of a recording: always above is speech, always below a pause
NUM_EACH = 64


def prepare(folder: Path, sources: dict[str, Path]) -> None:
    """Writes speech.npz: inputs float32 [128, 8, 576], targets float32 [128, 8], 1 = speech."""
    random = np.random.default_rng(0)
    recordings = [path for name, path in sources.items() if name.endswith((".wav", ".raw"))]
    spoken, silent = [], []
    for path in recordings:
        for piece, relative in pieces(read_sound(path)):
            if relative.min() > LOUD:
                spoken.append(piece)
            elif relative.max() < QUIET:
                silent.append(piece)
    spoken = [spoken[index] for index in random.permutation(len(spoken))[:NUM_EACH]]
    silent = [*silent, *(noise(kind, random) for kind in range(len(spoken)))][: len(spoken)]
    inputs = np.stack([*spoken, *silent]).astype(np.float32)
    targets = np.repeat(np.array([1, 0], dtype=np.float32), len(spoken))[:, None].repeat(STEPS, 1)
    order = random.permutation(len(inputs))
    np.savez(folder / "speech.npz", inputs=inputs[order], targets=targets[order])


def pieces(sound: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs [8, 576] cut from a recording, each with the loudness [8] of its steps relative to the loudest."""
    starts = range(CONTEXT, len(sound) - STEPS * STEP, STEP)
    loudest = max(np.sqrt(np.mean(sound[start : start + STEP] ** 2)) for start in starts)
    found = []
    for start in range(CONTEXT, len(sound) - STEPS * STEP, STEPS * STEP // 2):
        piece = steps(sound[start - CONTEXT : start + STEPS * STEP])
        found.append((piece, np.sqrt(np.mean(piece[:, CONTEXT:] ** 2, axis=1)) / loudest))
    return found


def noise(kind: int, random: np.random.Generator) -> np.ndarray:
    """An input [8, 576] without speech: white noise, brown noise, or the hum of the mains."""
    length = CONTEXT + STEPS * STEP
    white = random.normal(0, 1, length)
    if kind % 3 == 1:
        white = np.cumsum(white)
    elif kind % 3 == 2:
        time = np.arange(length) / 16000
        white = 0.1 * white + sum(np.sin(2 * np.pi * 50 * factor * time) / factor for factor in (1, 2, 3))
    white -= white.mean()
    return steps(white / np.abs(white).max() * random.uniform(0.01, 0.3))


def steps(sound: np.ndarray) -> np.ndarray:
    """Sound [64 + 8·512] as steps [8, 576], each with what came before it."""
    return np.stack([sound[step * STEP : (step + 1) * STEP + CONTEXT] for step in range(STEPS)])
