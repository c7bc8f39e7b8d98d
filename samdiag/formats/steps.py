"""The training step of a checkpoint: what its name says, and what is written in it.

A step is one number by which the checkpoints of a run are put in order; nothing is converted. A count of optimizer
steps is preferred wherever both it and a count of epochs are said. A run that names some files by epochs and others by
steps is ordered by these numbers as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePath
from typing import Any

MOST = 2**63 - 1  # what any counter can hold
_NUMBER = r"(\d+(?:[kK](?![A-Za-z])|[eE]\d)?)(?![A-Za-z\d])(?!\.\d)"  # 500, 10k, 1e4; no 0.93, no 16x16, no 224px
_PLAN = r"(?:max|num|total|warmup|n)[-_=]?"  # max_steps=500 says how long the run is to be
_STEP = re.compile(rf"(?<![A-Za-z])(?:global[-_]?)?(?:steps?|iter(?:ation)?s?)[-_=]?{_NUMBER}", re.IGNORECASE)
_PLANNED = re.compile(rf"{_PLAN}$", re.IGNORECASE)
_SAVED = re.compile(rf"(?<![A-Za-z])(?:checkpoint|ckpt|chkpt|snapshot)[-_=]?{_NUMBER}", re.IGNORECASE)
_EPOCH = re.compile(rf"(?<![A-Za-z])(?:epoch|ep)[-_=]?{_NUMBER}", re.IGNORECASE)
_WHOLE = re.compile(r"(?:(?:model|weights?|net|params|state|save)[-_=]?)?(\d+)", re.IGNORECASE)  # the whole stem
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_DATE_GOES_ON = re.compile(r"[-_.T]?\d{2}[-_.]?\d{2}")  # after a year: the month and the day
UNIX_TIME = range(10**9, 2 * 10**9)  # seconds from 2001 to 2033
SUFFIXES = (".safetensors", ".index.json", ".json", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl", ".distcp")
STEP_KEYS = ("global_step", "step", "iteration", "iter", "global_steps", "num_steps", "num_updates")


class Unit(IntEnum):
    """What a number in a name counts, by how much it says."""

    EPOCH = 1
    SAVED = 2  # "checkpoint-500", "model_0001": mostly steps
    STEP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedStep:
    """A step that a name says.

    Attributes:
        number: the count.
        unit: of what.
        in_folder: said by the folder that the file lies in, and not by its own name.
    """

    number: int
    unit: Unit
    in_folder: bool = False


def step_in_name(path: str | PurePath) -> int | None:
    """The training step that a file's or folder's name says, or else the folder it lies in; None where neither does.

    Steps and iterations come before "checkpoint-500" and these before epochs. Dates, times, versions, scores, sizes in
    the names of models and lengths that a run is to have are no steps.
    """
    found = named_step(path)
    return None if found is None else found.number


def named_step(path: str | PurePath) -> NamedStep | None:
    """The same with what the number counts and where it was said."""
    path = PurePath(path)
    stem = _stem(path.name)
    own = _spelled(stem) or _whole(stem)
    if own is not None:
        return NamedStep(number=own[0], unit=own[1])
    outer = _spelled(path.parent.name)
    return None if outer is None else NamedStep(number=outer[0], unit=outer[1], in_folder=True)


def run_folder(path: str | PurePath) -> str:
    """The folder of the run that a checkpoint belongs to: the one it lies in, or that of `checkpoint-500/`."""
    path = PurePath(path)
    named = named_step(path)
    return str(path.parent.parent if named is not None and named.in_folder else path.parent)


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that orders numbers in names by their value: "run2" before "run10"."""
    parts = (part for part in re.split(r"([0-9]+)", text) if part)
    return tuple(_part(part) for part in parts)


def _part(part: str) -> tuple[int, int, str]:
    if part[0] in "0123456789":
        digits = part.lstrip("0")
        return (0, len(digits), digits)
    return (1, 0, part)


def step_in(saved: object, path: str | PurePath) -> int | None:
    """The step that a saved dictionary says; its epoch only where neither it nor its name says a step.

    Args:
        saved: what the file holds: plain values beside the weights. Untrusted.
        path: of the file.
    """
    if not isinstance(saved, Mapping):
        return None
    for key in STEP_KEYS:
        if (count := as_count(saved.get(key))) is not None:
            return count
    named = named_step(path)
    if named is not None and named.unit > Unit.EPOCH:
        return named.number
    return as_count(saved.get("epoch"))


def as_count(value: object) -> int | None:
    """`value` as a whole number ≥ 0, also of a tensor of one, or its digits; None where it is none."""
    if type(value).__name__ == "Tensor":  # by name: torch need not be loaded to tell
        value = _scalar(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):  # as in the metadata of safetensors
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST else None


def _scalar(tensor: Any) -> object:
    """The value of a dense tensor of one element; None of another."""
    dense = str(tensor.layout) == "torch.strided" and not tensor.is_meta and not tensor.is_quantized
    plain = dense and tensor.numel() == 1
    return tensor.item() if plain else None


def _stem(name: str) -> str:
    """`name` without the suffixes of checkpoints."""
    while (suffix := next((end for end in SUFFIXES if name.lower().endswith(end)), None)) and len(name) > len(suffix):
        name = name[: -len(suffix)]
    return name


def _spelled(stem: str) -> tuple[int, Unit] | None:
    """The last number that follows a word for a step."""
    for pattern, unit in ((_STEP, Unit.STEP), (_SAVED, Unit.SAVED), (_EPOCH, Unit.EPOCH)):
        for found in reversed(list(pattern.finditer(stem))):
            count = _count(found[1])
            planned = _PLANNED.search(stem[: found.start()]) is not None
            dated = unit is not Unit.STEP and _is_date(found[1], stem[found.end() :])
            if count is not None and not planned and not dated:
                return count, unit
    return None


def _whole(stem: str) -> tuple[int, Unit] | None:
    found = _WHOLE.fullmatch(stem)
    count = None if found is None or _is_date(found[1], "") else _count(found[1])
    return None if count is None else (count, Unit.SAVED)


def _is_date(digits: str, rest: str) -> bool:
    """Whether digits and what follows them are a date or a time."""
    year = len(digits) == 4 and digits[:2] in ("19", "20") and _DATE_GOES_ON.match(rest) is not None
    stamped = len(digits) >= 8 and _DATE.match(digits) is not None and len(digits) in (8, 12, 14)
    return year or stamped or (len(digits) == 10 and digits.isdecimal() and int(digits) in UNIX_TIME)


def _count(text: str) -> int | None:
    digits, _, power = text.lower().partition("e")
    thousands = digits.endswith("k")
    digits = digits.removesuffix("k")
    if len(digits) > len(str(MOST)) and len(digits.lstrip("0")) > len(str(MOST)):
        return None
    count = int(digits) * (1000 if thousands else 1) * 10 ** int(power or "0")
    return count if count <= MOST else None
