"""Whether a pickle can be read in time and memory in proportion to its size: looked at before anything reads it.

A few hundred bytes can build a tuple that contains itself twice, forty times over: hashing or printing it never ends.
Others double a text with every call of `_codecs.encode`. What is built here is only how large each object would be.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

MAX_WEIGHT = 100_000  # objects inside one tuple, counted as often as they appear; honest ones have some ten
MARGIN = 1 << 26  # bytes: 64 MB that tensors may claim beyond what the file holds, for buffers that were expanded
ENCODERS = ("_codecs encode", "codecs encode")
HONEST_ENCODINGS = ("latin1", "latin-1", "utf-8", "ascii")  # bytes in protocol 2 are a text and "latin1"
FETCHES = ("GET", "BINGET", "LONG_BINGET")
STORES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object that the pickle would build: how many objects it consists of, and what it is where that matters."""

    weight: int = 1
    text: str | None = None  # of a literal
    parts: tuple[_Thing, ...] = ()  # of a tuple


_ANY = _Thing()
_MADE = _Thing()  # what a call returned: never a literal
_MARK = _Thing(weight=0)


class Disproportionate(ValueError):
    """A pickle, or tensors, that ask for far more than the file has."""


def check_pickle(file: BinaryIO | bytes) -> None:
    """Nothing where the next pickle of `file` is in proportion, or is none: its reader will say what is wrong with it.

    Raises:
        Disproportionate: reading it would take time or memory out of all proportion to its size.
    """
    stream = io.BytesIO(file) if isinstance(file, bytes) else file
    scan = _Scan()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            scan.step(opcode, argument)
    except Disproportionate:
        raise
    except (ValueError, IndexError, KeyError, OverflowError, pickle.UnpicklingError, UnicodeDecodeError):
        return  # malformed: the reader stops at the same place or before it


class _Scan:
    """The stack and the memo of an unpickler that builds nothing."""

    def __init__(self) -> None:
        self.stack: list[_Thing] = []
        self.memo: dict[int, _Thing] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in TUPLES:
            self._tuple(len(self.stack) - TUPLES[name])
        elif name == "TUPLE":
            start = self._mark()
            self._tuple(start + 1)
            del self.stack[start]
        elif name in FETCHES:
            self.stack.append(self.memo[int(argument)])
        elif name in STORES:
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            _check_call(function, arguments)
            self.stack.append(_MADE)
        else:
            self._other(opcode, argument)

    def _other(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Any other opcode: what it takes off the stack and puts there, by Python's own table."""
        taken, put = opcode.stack_before, opcode.stack_after
        if pickletools.markobject in taken:
            start = self._mark()
            del self.stack[start:]
            taken = taken[: taken.index(pickletools.markobject)]
        if taken:
            del self.stack[-len(taken) :]
        for kind in put:
            if kind is pickletools.markobject:
                self.stack.append(_MARK)
            elif isinstance(argument, str) and len(argument) < 100:
                self.stack.append(_Thing(text=argument))
            else:
                self.stack.append(_ANY)

    def _mark(self) -> int:
        """Where the last mark lies."""
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("there is no mark")
        return start

    def _tuple(self, start: int) -> None:
        parts = tuple(self.stack[start:])
        weight = 1 + sum(part.weight for part in parts)
        if weight > MAX_WEIGHT:
            raise Disproportionate("its pickle nests a few objects into far more than the file has")
        self.stack[start:] = [_Thing(weight=weight, parts=parts if len(parts) < 4 else ())]


def _check_call(function: _Thing, arguments: _Thing) -> None:
    """Nothing, or Disproportionate where a text is encoded in a way that makes it grow."""
    if function.text not in ENCODERS:
        return
    literal = all(part is not _MADE and not part.parts for part in arguments.parts)
    encoding = arguments.parts[1].text if len(arguments.parts) == 2 else None
    if not literal or encoding not in HONEST_ENCODINGS:
        raise Disproportionate("its pickle encodes a text in a way that makes it grow")


def check_tensors(saved: object, size: int) -> None:
    """Nothing where the tensors in `saved` hold no more than a file of `size` bytes can.

    Raises:
        Disproportionate: one value stands for a whole tensor, or memory is claimed that no byte of the file fills.
    """
    held: dict[int, int] = {}
    repeated = 0
    for tensor in _tensors(saved):
        storage = tensor.untyped_storage()
        held[storage._cdata] = storage.nbytes()
        repeated += max(0, math.prod(tensor.shape) * tensor.element_size() - storage.nbytes())
    if sum(held.values()) > size + MARGIN or repeated > MARGIN:
        raise Disproportionate("its tensors claim far more values than the file holds")


def _tensors(saved: object) -> Iterable[Tensor]:
    """Every dense tensor with values inside `saved`, without recursion; what contains itself is seen once."""
    import torch

    level: list[object] = [saved]
    seen: set[int] = set()
    while level:
        item = level.pop()
        if isinstance(item, torch.Tensor):
            if item.layout == torch.strided and item.device.type == "cpu" and not item.is_nested:
                yield item
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            level += item.values() if isinstance(item, dict) else item
