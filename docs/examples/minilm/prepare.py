"""Data for MiniLM: nouns of WordNet and their definitions, as numbered words."""

import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

NUM_PAIRS = 32
LENGTH = 12  # tokens: longer definitions are left out
LINE = re.compile(r"^\d{8} \d\d n [0-9a-f]{2} (\S+) .*? \| ([^;\n]+)")  # of a synset: first word, definition


def prepare(folder: Path, sources: dict[str, Path]) -> None:
    """Writes pairs.safetensors: word_ids and text_ids int64 [32, tokens]; 0 fills the end."""
    pairs = read_pairs(sources["data.noun"])
    chosen = [pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))[: 4 * NUM_PAIRS]]
    number = {
        token: index
        for index, token in enumerate((folder / "model" / "vocab.txt").read_text(encoding="utf-8").splitlines())
    }
    rows = [(encode(word, number), encode(text, number)) for word, text in chosen]
    rows = [row for row in rows if max(len(row[0]), len(row[1])) <= LENGTH][:NUM_PAIRS]
    columns = {"word_ids": [row[0] for row in rows], "text_ids": [row[1] for row in rows]}
    save_file({name: padded(values) for name, values in columns.items()}, folder / "pairs.safetensors")


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Word and definition of every noun written in plain small letters."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if match and re.fullmatch(r"[a-z_]+", match[1]):
            found.append((match[1].replace("_", " "), match[2].strip().lower()))
    return found


def encode(text: str, number: dict[str, int]) -> list[int]:
    """The numbers of [CLS], of the pieces of the words (the longest first, as WordPiece does), and of [SEP]."""
    found = [number["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", text):
        found += pieces(word, number)
    return [*found, number["[SEP]"]]


def pieces(word: str, number: dict[str, int]) -> list[int]:
    found, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        ends = (end for end in range(len(word), start, -1) if mark + word[start:end] in number)
        end = next(ends, None)
        if end is None:
            return [number["[UNK]"]]
        found.append(number[mark + word[start:end]])
        start = end
    return found


def padded(rows: list[list[int]]) -> torch.Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])
