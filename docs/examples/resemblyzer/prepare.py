"""Data for the voice encoder: spectrograms of several speakers."""

from pathlib import Path

import numpy as np
import torch
from speech import SAMPLE_RATE, read_sound

WINDOW, STEP = 400, 160  # samples: 25 and 10 ms
NUM_BANDS, FRAMES = 40, 80  # 0.8 s: half of what it was trained with, and a quarter of the time
UTTERANCES = 8  # of each speaker in a batch
NUM_BATCHES = 2
SPEAKERS = (  # how the names of each one's recordings begin
    ("sense_and_sensibility",),
    ("00",),
    ("dhd", "goforward", "numbers", "something"),
)
LOUDNESS = 10 ** (-30 / 20)  # mean square root that quiet recordings are raised to


def prepare(folder: Path, sources: dict[str, Path]) -> None:
    """Writes voices.npz: inputs float32 [batches, speakers, 8, 80, 40]."""
    voices = [utterances([sources[name] for name in sorted(sources) if name.startswith(begin)]) for begin in SPEAKERS]
    random = np.random.default_rng(0)
    batches = [[voice[random.permutation(len(voice))[:UTTERANCES]] for voice in voices] for _ in range(NUM_BATCHES)]
    np.savez(folder / "voices.npz", inputs=np.array(batches, dtype=np.float32))


def utterances(paths: list[Path]) -> np.ndarray:
    """Spectrograms [utterances, 80, 40] of one speaker, half overlapping."""
    found = []
    for path in paths:
        sound = read_sound(path)
        sound = sound * max(1.0, LOUDNESS / float(np.sqrt(np.mean(sound**2))))
        frames = spectrogram(torch.from_numpy(sound)).numpy()
        found += [frames[start : start + FRAMES] for start in range(0, len(frames) - FRAMES + 1, FRAMES // 2)]
    return np.stack(found)


def spectrogram(sound: torch.Tensor) -> torch.Tensor:
    """Energy [frames, 40] in bands that widen as those of the ear (Slaney's mel scale, each of unit area)."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(sound, WINDOW, STEP, window=window, center=True, pad_mode="constant", return_complex=True)
    return (spectrum.abs() ** 2).T @ torch.from_numpy(bands()).to(torch.float32)


def bands() -> np.ndarray:
    """Weight [frequencies, 40] of each frequency in each band: triangles between neighbouring centres."""
    edges = hertz(np.linspace(0, mel(SAMPLE_RATE / 2), NUM_BANDS + 2))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None) * 2 / (edges[2:] - edges[:-2])


def mel(frequency: float) -> float:
    """Mels of a frequency from 1000 Hz up, on Slaney's scale: 200/3 Hz each up to 1000 Hz, then logarithmic."""
    return 15 + 27 * np.log(frequency / 1000) / np.log(6.4)


def hertz(mels: np.ndarray) -> np.ndarray:
    """Frequencies of `mels` on the same scale."""
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
