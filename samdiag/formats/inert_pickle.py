"""A pickle read as a tree of plain values: nothing is imported, nothing is called, no attribute is ever set or read.

Python's own unpickler looks names up and calls them; even with its lookup overridden it still fills attributes, knows
an extension registry, and allocates what a memo index claims. This reader knows the operations that `pickle.dump`
writes for plain values and for objects of a few named classes, and refuses every other one. An object becomes an
`Object`: the name of its class with what was said about it.
Source: PEP 307 and PEP 3154; the operations are those of `pickletools`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

NO_STATE: Any = object()
MAX_TEXT = 100_000  # characters of one text; names and paths have some 100
MAX_INTEGER_BYTES = 8  # sizes and offsets are 64-bit
MAX_OPERATIONS = 20_000_000  # some 70 per piece of a stored tensor: 300 000 pieces, half a minute
KEY_TYPES = (str, int, bool)  # of dictionaries, beside Objects; their hashes cannot be made slow by nesting
MAX_KEY_INTEGER = 2**31  # larger ones could be chosen to share one hash


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the pickle names and that is on the list: a pair of texts, and nothing more."""

    module: str
    name: str


@dataclass(slots=True, eq=False)  # compared and hashed by identity: it may be a key, whatever it holds
class Object:
    """What the pickle says about one object: its class, the arguments of its construction, and its state."""

    kind: Name
    arguments: tuple[Any, ...]
    state: Any = field(default=NO_STATE)


class Refused(ValueError):
    """The pickle does something that is not read: the message says what."""


def read_pickle(data: bytes, allowed: Collection[tuple[str, str]]) -> Any:
    """The tree of plain values, `Name`s and `Object`s that a pickle describes.

    Args:
        data: the pickle, whole; every part of the result is bounded by its length.
        allowed: the exact (module, name) pairs that it may name.

    Raises:
        Refused: it names anything else or uses an operation that is not read.
        ValueError, IndexError, KeyError, struct.error: it is damaged.
    """
    return _Machine(data, frozenset(allowed)).run()


class _Machine:
    """The stack, the marks and the memo of one reading."""

    def __init__(self, data: bytes, allowed: frozenset[tuple[str, str]]) -> None:
        self.data, self.at, self.allowed = data, 0, allowed
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPERATIONS):
            operation = TABLE[self.byte()]
            if operation is None:
                return self.result()
            operation(self)
        raise Refused(f"it takes more than {MAX_OPERATIONS} operations")

    def result(self) -> Any:
        """What the pickle is, at its end; Refused where what stopped the reading is no end."""
        code = self.data[self.at - 1 : self.at]
        if code != STOP:
            raise Refused(f"it uses the operation {code!r}, which plain values do not need")
        if len(self.stack) != 1 or self.marks:
            raise ValueError("it ends in the middle")
        return self.stack[0]

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise ValueError("it is cut short")
        self.at += 1
        return self.data[self.at - 1]

    def take(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        if count < 0 or len(found) != count:
            raise ValueError("it is cut short")
        self.at += count
        return found

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + MAX_TEXT)
        if end < 0:
            raise ValueError("it is cut short")
        found = self.data[self.at : end].decode("utf-8")
        self.at = end + 1
        return found

    def number(self, layout: str) -> int:
        found: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return found

    def text(self, length: int) -> str:
        if length > MAX_TEXT:
            raise ValueError(f"a text in it has {length} bytes, more than the {MAX_TEXT} allowed")
        return self.take(length).decode("utf-8")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes more than it has put")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        """The value on the stack, which is to be filled or given a state; it must be of this very kind."""
        value = self.stack[-1] if len(self.stack) > (self.marks[-1] if self.marks else 0) else None
        if type(value) is not kind:
            raise Refused(f"it changes a {type(value).__name__} as if it were a {kind.__name__}")
        return value

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def named(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or (module, name) not in self.allowed:
            both = type(module) is str and type(name) is str  # anything else may be endless when it is written out
            raise Refused(f"it names {module}.{name}" if both else "it names something by what is no text")
        self.stack.append(Name(module, name))

    def make(self) -> None:
        """REDUCE and NEWOBJ: what would be called becomes a record of the call."""
        arguments, kind = self.pop(), self.pop()
        if type(kind) is not Name or type(arguments) is not tuple:
            raise Refused("it calls something that is not a class of the list")
        self.stack.append(Object(kind, arguments))

    def build(self) -> None:
        state = self.pop()
        made = self.top(Object)
        if made.state is not NO_STATE:
            raise Refused("it gives an object its state twice")
        made.state = state

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def fill(self, items: list[Any]) -> None:
        table = self.top(dict)
        if len(items) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (*KEY_TYPES, Object) or (type(key) is int and abs(key) > MAX_KEY_INTEGER):
                raise Refused(f"it uses a {type(key).__name__} as the key of a table")
            table[key] = value

    def remember(self, index: int) -> None:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it remembers what it has not put")
        self.memo[index] = self.stack[-1]

    def integer(self, length: int) -> None:
        if length > MAX_INTEGER_BYTES:
            raise Refused(f"it holds an integer of {length} bytes")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def last(self, count: int) -> tuple[Any, ...]:
        return tuple([self.pop() for _ in range(count)][::-1])


def _protocol(machine: _Machine) -> None:
    version = machine.byte()
    if version > 5:  # the newest there is
        raise Refused(f"its protocol {version} is unknown")


def _old_global(machine: _Machine) -> None:
    module = machine.line()
    machine.named(module, machine.line())


STOP = b"."
OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    # protocol and frames: a frame says only how much a stream should read at once
    b"\x80": _protocol,
    b"\x95": lambda m: (m.take(8), None)[1],
    # plain values
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"K": lambda m: m.stack.append(m.byte()),
    b"M": lambda m: m.stack.append(m.number("<H")),
    b"J": lambda m: m.stack.append(m.number("<i")),
    b"\x8a": lambda m: m.integer(m.byte()),
    b"G": lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),
    b"\x8c": lambda m: m.stack.append(m.text(m.byte())),
    b"X": lambda m: m.stack.append(m.text(m.number("<I"))),
    # containers
    b"(": lambda m: m.marks.append(len(m.stack)),
    b")": lambda m: m.stack.append(()),
    b"t": lambda m: m.stack.append(tuple(m.since_mark())),
    b"\x85": lambda m: m.stack.append(m.last(1)),
    b"\x86": lambda m: m.stack.append(m.last(2)),
    b"\x87": lambda m: m.stack.append(m.last(3)),
    b"]": lambda m: m.stack.append([]),
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.since_mark()),
    b"}": lambda m: m.stack.append({}),
    b"s": lambda m: m.fill(list(m.last(2))),
    b"u": lambda m: m.fill(m.since_mark()),
    # memo
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"q": lambda m: m.remember(m.byte()),
    b"r": lambda m: m.remember(m.number("<I")),
    b"h": lambda m: m.stack.append(m.memo[m.byte()]),
    b"j": lambda m: m.stack.append(m.memo[m.number("<I")]),
    # names, and objects of the named classes
    b"c": _old_global,
    b"\x93": lambda m: m.named(*m.last(2)),
    b"R": _Machine.make,
    b"\x81": _Machine.make,
    b"b": _Machine.build,
}
TABLE = [OPERATIONS.get(bytes([code])) for code in range(256)]  # by number; None: not read
