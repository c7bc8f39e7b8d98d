"""Tensor files in the working folder whose inputs, targets or columns fit the checkpoint's shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import SamdiagError
from samdiag.guessing.outline import Outline, fits, times
from samdiag.quoting import listed, shown

if TYPE_CHECKING:
    from torch import Tensor

PAIRS = (
    *(("inputs", "targets"), ("x_train", "y_train"), ("X", "y"), ("x", "y"), ("images", "labels")),
    *(("data", "labels"), ("features", "labels"), ("inputs", "labels"), ("data", "targets")),
)
WORD_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels", "decoder_input_ids")
MAX_BYTES = 1 << 30  # of one file: larger ones are named without a look inside
MAX_DEPTH = 3  # folders below the working folder: data/raw/train.npz
MAX_ENTRIES = 20_000  # files and folders looked at
SKIPPED = ("node_modules", "__pycache__", "site-packages", "venv", "env")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataGuess:
    """Something in the working folder that may be the data.

    Attributes:
        value: what the spec would say under `data`.
        why: what was compared.
        fits: whether all of it agrees with the checkpoint.
        exact: whether it also has as many classes as the checkpoint.
        possible: whether what does not agree are only shapes that a network of one's own may change itself.
        loss: the loss that its targets ask for; None where they leave it open.
        other_loss: one that takes the same targets.
        targets: what they look like.
    """

    value: Mapping[str, Any]
    why: str
    fits: bool
    exact: bool = False
    possible: bool = False
    loss: str | None = None
    other_loss: str | None = None
    targets: str = ""


def files_below(folder: Path) -> Iterator[Path]:
    """The files and folders below `folder` in the order of their names, no deeper than three levels; none hidden."""
    waiting = [(folder, 0)]
    count = 0
    while waiting:
        current, depth = waiting.pop(0)
        try:
            entries = sorted(current.iterdir())
        except OSError:
            continue
        for entry in entries:
            count += 1
            if count > MAX_ENTRIES:
                return
            if entry.name.startswith(".") or entry.name in SKIPPED:
                continue
            yield entry
            if entry.is_dir() and not entry.is_symlink() and depth < MAX_DEPTH - 1:
                waiting.append((entry, depth + 1))


def tensor_files(paths: list[Path], folder: Path, outline: Outline, checkpoint: Path) -> list[DataGuess]:
    """A guess for each .npz or .safetensors file with inputs and targets or with columns of words; fitting ones first.

    Args:
        paths: files to look at.
        folder: what the spec's paths are relative to.
        outline: of the checkpoint.
        checkpoint: not looked at itself.
    """
    found = []
    for path in paths:
        if path.suffix not in {".npz", ".safetensors"} or not path.is_file() or _inside(path, checkpoint):
            continue
        guess = _guess(path, path.relative_to(folder).as_posix(), outline)
        found += [guess] if guess is not None else []
    return sorted(found, key=lambda guess: (not guess.fits, not guess.exact))


def _inside(path: Path, checkpoint: Path) -> bool:
    return path.resolve().is_relative_to(checkpoint.resolve())


def _guess(path: Path, name: str, outline: Outline) -> DataGuess | None:
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        tensors = _read(path)
    except (SamdiagError, OSError):
        return None
    for pair in PAIRS:
        if set(pair) <= set(tensors):
            args = {} if pair == PAIRS[0] else {"inputs": pair[0], "targets": pair[1]}
            value = {"tensors": name} | ({"args": args} if args else {})
            return _pair(value, tensors[pair[0]], tensors[pair[1]], outline)
    if WORD_COLUMNS[0] in tensors:
        return _columns({"tensors": name}, tensors, outline)
    return None


def _read(path: Path) -> Mapping[str, Tensor]:
    from samdiag.formats.safetensors_header import read_header
    from samdiag.spec.data.numpy_archive import read_archive

    if path.suffix == ".npz":
        return read_archive(path)
    names = read_header(path).tensors
    if not any(set(pair) <= set(names) for pair in PAIRS) and WORD_COLUMNS[0] not in names:
        return {}  # weights of some network, not read
    from safetensors.torch import load_file

    return load_file(path, device="cpu")


def _pair(value: Mapping[str, Any], inputs: Tensor, targets: Tensor, outline: Outline) -> DataGuess:
    """Inputs against the first layer, targets against the last one."""
    sample = tuple(inputs.shape[1:])
    loss, exact, wrong, odd = _targets(targets, outline.num_outputs)
    if len(inputs) != len(targets):
        wrong.append(f"{len(inputs)} inputs and {len(targets)} targets")
    shapes = outline.input_shapes
    flat = math.prod(sample)
    if shapes and not any(fits(sample, shape) for shape in shapes) and (flat,) not in shapes:
        odd.append(f"a sample is {times(sample)}, and the first layer takes {times(shapes[0])}")
    reasons = [*wrong, *odd]
    described = f"{len(inputs)} samples of {times(sample)}, targets {times(targets.shape[1:]) or 'one number'}"
    why = f"{described}: {'; '.join(reasons)}" if reasons else f"{described}, as the first and last layer ask"
    return DataGuess(
        value=value,
        why=why,
        fits=not reasons,
        exact=exact,
        possible=not wrong,
        loss=loss,
        other_loss={"mse": "bce_with_logits", "bce_with_logits": "mse"}.get(loss or ""),
        targets=_range(targets),
    )


def _targets(targets: Tensor, outputs: int | None) -> tuple[str | None, bool, list[str], list[str]]:
    """(the loss they ask for, whether the classes are exactly the outputs, what cannot be, what is only odd)."""
    if targets.numel() == 0:
        return None, False, ["no targets"], []
    if targets.is_floating_point():
        width = math.prod(targets.shape[1:])
        probable = bool(((targets >= 0) & (targets <= 1)).all()) and bool((targets == 0).any() or width > 1)
        loss = "bce_with_logits" if probable else "mse"
        reason = "" if outputs is None or width == outputs else f"{width} targets a sample and {outputs} outputs"
        return loss, not reason, [], [reason] if reason else []
    low, high = int(targets.min()), int(targets.max())
    if low < 0:
        return "cross_entropy", False, [f"targets begin at {low}"], []
    if outputs is not None and high >= outputs:
        return "cross_entropy", False, [f"targets reach {high}, and there are {outputs} outputs"], []
    return "cross_entropy", outputs == high + 1, [], []


def _range(targets: Tensor) -> str:
    if targets.numel() == 0:
        return "none"
    kind = "numbers" if targets.is_floating_point() else "whole numbers"
    return f"{kind} from {targets.min().item():g} to {targets.max().item():g}"


def _columns(value: Mapping[str, Any], tensors: Mapping[str, Tensor], outline: Outline) -> DataGuess:
    """Words against the vocabulary."""
    words = tensors[WORD_COLUMNS[0]]
    reasons = []
    if words.is_floating_point() or words.numel() == 0:
        reasons.append("input_ids are no whole numbers")
    elif outline.vocabulary is not None and int(words.max()) >= outline.vocabulary:
        reasons.append(f"input_ids reach {int(words.max())}, and there are {outline.vocabulary} words")
    described = f"{len(words)} rows with the columns {listed(tensors)}"
    why = f"{described}: {'; '.join(reasons)}" if reasons else f"{described}, within the vocabulary"
    loss = "model" if "labels" in tensors else "causal_lm"
    return DataGuess(value=value, why=shown(why), fits=not reasons, loss=loss, targets="its labels, or the next words")
