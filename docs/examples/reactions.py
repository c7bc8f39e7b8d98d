"""Chemical reactions from patents, as masked text for the language models of reactions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

TOKEN = re.compile(r"\[[^]]+]|Br|Cl|>>|%\d\d|[A-Za-z]|\d|[-().=#+\\/:~@?*$]")  # one atom, bond or bracket each
LONGEST = 80  # tokens: longer reactions are left out
MASKED = 0.15  # of the tokens, as in BERT


def write_masked(sources: dict[str, Path], vocabulary: Path, target: Path) -> None:
    """Writes input_ids, attention_mask and labels [reactions, tokens] of masked reactions for a masked language model.

    Every masked token is replaced by [MASK]; labels are −100 everywhere else.
    """
    number = {token: index for index, token in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}
    rows = [row for text in reactions(sources) if len(row := encode(text, number)) <= LONGEST]
    length = max(len(row) for row in rows)
    input_ids = torch.tensor([row + [number["[PAD]"]] * (length - len(row)) for row in rows])
    attention_mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    hidden = torch.rand(input_ids.shape, generator=torch.Generator().manual_seed(0)) < MASKED
    hidden &= attention_mask.bool() & (input_ids != number["[CLS]"]) & (input_ids != number["[SEP]"])
    labels = input_ids.masked_fill(~hidden, -100)
    input_ids = input_ids.masked_fill(hidden, number["[MASK]"])
    save_file({"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}, target)


def reactions(sources: dict[str, Path]) -> list[str]:
    """Reactions as `reactants>>products`, what was added to the flask among the reactants."""
    found = []
    for name in ("granularity_examples.json", "granularity_examples_medchem.json"):
        for bucket in json.loads(sources[name].read_text(encoding="utf-8"))["buckets"]:
            for subclass in bucket["our_subclasses"]:
                found += subclass["example_reactions"]
    return [joined(text) for text in sorted(set(found))]


def joined(text: str) -> str:
    """`A>B>C` as `A.B>>C`."""
    reactants, agents, products = text.split(">")
    return f"{'.'.join(part for part in (reactants, agents) if part)}>>{products}"


def encode(text: str, number: dict[str, int]) -> list[int]:
    """The numbers of the tokens, between those of [CLS] and [SEP]."""
    tokens = ["[CLS]", *TOKEN.findall(text), "[SEP]"]
    return [number.get(token, number["[UNK]"]) for token in tokens]
