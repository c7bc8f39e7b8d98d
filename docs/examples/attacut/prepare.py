"""Data for AttaCut: frequent words of the Thai National Corpus, one after the other without spaces."""

import json
from pathlib import Path

import numpy as np

NUM_TEXTS, LENGTH = 128, 64
MOST_FREQUENT = 5000  # of the words; the others are names and slips


def prepare(folder: Path, sources: dict[str, Path]) -> None:
    """Writes words.npz: inputs int64 [128, 64], targets float32 [128, 64], 1 where a word begins."""
    number = json.loads(sources["characters.json"].read_text(encoding="utf-8"))
    words, weights = frequent_words(sources["tnc_freq.txt"], number)
    random = np.random.default_rng(0)
    inputs = np.zeros((NUM_TEXTS, LENGTH), dtype=np.int64)
    targets = np.zeros((NUM_TEXTS, LENGTH), dtype=np.float32)
    for row in range(NUM_TEXTS):
        position = 0
        for index in random.choice(len(words), LENGTH, p=weights):
            characters = [number[character] for character in words[index]][: LENGTH - position]
            if not characters:
                break
            inputs[row, position : position + len(characters)] = characters
            targets[row, position] = 1
            position += len(characters)
    np.savez(folder / "words.npz", inputs=inputs, targets=targets)


def frequent_words(path: Path, number: dict[str, int]) -> tuple[list[str], np.ndarray]:
    """Words of at least two Thai letters, and how often each is drawn: as often as in the corpus."""
    words, counts = [], []
    for line in path.read_text(encoding="utf-8").splitlines()[:MOST_FREQUENT]:
        word, count = line.split("\t")
        if len(word) > 1 and all("\u0e01" <= character <= "\u0e4d" and character in number for character in word):
            words.append(word)
            counts.append(int(count))
    return words, np.array(counts) / sum(counts)
