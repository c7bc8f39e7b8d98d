"""Texts as tokens: for the next token, for masked ones, or with a class; padded by batch or to one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from samdiag.errors import UsageError
from samdiag.quoting import listed, quoted
from samdiag.spec.data.options import Options
from samdiag.spec.data.tables import Table
from samdiag.spec.data.tokenizers import load_tokenizer
from samdiag.spec.losses import IGNORED
from samdiag.spec.requests import Data, DataRequest

TASKS = ("causal_lm", "masked_lm", "classification")
MASKED = 0.15  # of the tokens, of these 80 % as the mask, 10 % as another token, 10 % as they are. Source: BERT, 3.1
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
DEFAULT_LENGTH = 128  # tokens: what fits most short texts; said in the notes where texts are cut
MAX_TOKENS = 5_000_000  # of packed texts, held in memory
Sample = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """Samples of different lengths as one batch, filled at the end.

    Attributes:
        token: what inputs are filled with; attention and labels leave it out.
        length: of every batch; None: of the longest sample in it.
    """

    token: int
    length: int | None

    def __call__(self, samples: list[Sample]) -> dict[str, Tensor]:
        length = self.length or max(len(sample["input_ids"]) for sample in samples)
        return {name: self._column(name, [sample[name] for sample in samples], length) for name in samples[0]}

    def _column(self, name: str, rows: list[Any], length: int) -> Tensor:
        if not isinstance(rows[0], list):
            return torch.tensor(rows)
        fill = {"input_ids": self.token, "labels": IGNORED}.get(name, 0)
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be predicted of a text, and what the tokenizer needs for that.

    Attributes:
        name: of TASKS.
        share: of the tokens that are masked.
        seed: the mask of a row depends on it and on the row's number alone.
    """

    name: str
    share: float
    seed: int
    special: frozenset[int]
    mask: int | None
    vocabulary: int

    def labelled(self, encoded: Sample, row: int) -> Sample:
        """The sample with its labels."""
        ids = encoded["input_ids"]
        if self.name == "causal_lm":
            return {**encoded, "labels": list(ids)}
        generator = np.random.default_rng([self.seed, row])
        open_places = [place for place, token in enumerate(ids) if token not in self.special]
        drawn = generator.random(len(open_places)) < self.share
        if open_places and not drawn.any():
            drawn[generator.integers(len(open_places))] = True  # a text without any would say nothing
        inputs, labels = list(ids), [IGNORED] * len(ids)
        for place in np.array(open_places, dtype=int)[drawn].tolist():
            labels[place] = ids[place]
            how = generator.random()
            if how < MASK_SHARE:
                inputs[place] = int(self.mask or 0)
            elif how < MASK_SHARE + RANDOM_SHARE:
                inputs[place] = int(generator.integers(self.vocabulary))
        return {**encoded, "input_ids": inputs, "labels": labels}


class Texts(Dataset[Sample]):
    """Rows of text, tokenized when asked for."""

    def __init__(self, table: Table, columns: tuple[str, ...], rows: list[int], encode: Any, label: Any) -> None:
        self.columns, self.rows, self.encode, self.label = columns, rows, encode, label
        self.texts = table.rows.select_columns(list(columns))

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        texts = self.texts[row]
        return self.label(self.encode([texts[name] for name in self.columns]), row)  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.rows)


class Blocks(Dataset[Sample]):
    """A long run of tokens in blocks of one length."""

    def __init__(self, blocks: list[list[int]], task: Task) -> None:
        self.blocks, self.task = blocks, task

    def __getitem__(self, index: int) -> Sample:
        block = self.blocks[index]
        return self.task.labelled({"input_ids": block, "attention_mask": [1] * len(block)}, index)

    def __len__(self) -> int:
        return len(self.blocks)


def build_texts(request: DataRequest, table: Table, options: Options) -> Data:
    """Batches that are tables of tokens, as Hugging Face models take them.

    Args of the request: `task`, `columns` (of text: one, or two that make a pair), `targets` (the class column),
    `max_length`, `padding` ("longest" of the batch, or "max_length"), `pack` (texts one after another, cut into blocks
    of max_length), `mask_probability`.
    """
    name = options.choice("task", None, TASKS)
    columns = options.texts("columns") or tuple(table.texts()[:1])
    target = options.text("targets", "label" if "label" in table.names else "labels")
    said = options.count("max_length", None, least=2)
    padding = options.choice("padding", "longest", ("longest", "max_length"))
    packed = options.flag("pack", False)
    share = options.number("mask_probability", MASKED)
    options.finish()
    if name is None:
        raise UsageError("data.args.task is missing: what is predicted of the texts", f"add one of: {', '.join(TASKS)}")
    if not columns or len(columns) > 2:
        raise UsageError("data.args.columns must name one column of text, or two that make a pair", "correct it")
    if not 0 < share < 1:
        raise UsageError(f"data.args.mask_probability = {share} must be between 0 and 1", "correct it")
    for column in columns:
        table.check(column)
    tokenizer = load_tokenizer(request)
    length = said or min(DEFAULT_LENGTH, int(tokenizer.model_max_length))
    notes = () if said else (f"texts are cut after {length} tokens; max_length in data.args changes that",)
    task = _task(name, share, request.seed, tokenizer)
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    collate = Padding(token=pad, length=length if padding == "max_length" else None)
    if packed:
        if name == "classification" or len(columns) > 1:
            raise UsageError("data.args.pack joins texts, and each has a class or a pair", "leave pack out")
        return Data(returned=Blocks(_blocks(table, columns[0], tokenizer, length), task), collate=collate)

    def encode(texts: list[str]) -> Sample:
        found = tokenizer(*texts, truncation=True, max_length=length)
        return {key: list(value) for key, value in found.items()}

    rows = [row for row, text in enumerate(table.rows[columns[0]]) if isinstance(text, str) and text.strip()]
    if not rows:
        raise UsageError(
            f"the column {quoted(columns[0])} of {table.source} has no texts", f"it has {listed(table.names)}"
        )
    if name == "classification":
        classes = table.numbers(target)
        label: Any = lambda encoded, row: {**encoded, "labels": int(classes[row])}  # noqa: E731
    else:
        label = task.labelled
    return Data(returned=Texts(table, columns, rows, encode, label), collate=collate, notes=notes)


def _task(name: str, share: float, seed: int, tokenizer: Any) -> Task:
    if name == "masked_lm" and tokenizer.mask_token_id is None:
        raise UsageError(
            "task = masked_lm, and the tokenizer has no mask token", "choose causal_lm, or the model's own"
        )
    special = frozenset(int(token) for token in tokenizer.all_special_ids)
    return Task(
        name=name, share=share, seed=seed, special=special, mask=tokenizer.mask_token_id, vocabulary=len(tokenizer)
    )


def _blocks(table: Table, column: str, tokenizer: Any, length: int) -> list[list[int]]:
    """The tokens of all texts, an end-of-text between them, in blocks; the last, shorter one is left out."""
    run: list[int] = []
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for text in table.rows[column]:
        if isinstance(text, str) and text.strip():
            run += [*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], *end]
        if len(run) >= MAX_TOKENS:
            break
    blocks = [run[start : start + length] for start in range(0, len(run) - length + 1, length)]
    if not blocks:
        raise UsageError(f"the texts have {len(run)} tokens, fewer than one block of {length}", "choose a max_length")
    return blocks
