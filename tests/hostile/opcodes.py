"""Pickles written opcode by opcode: what no pickler would write, and the usual payloads."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

Payload = Callable[[Path], bytes]  # the marker → opcodes that leave one object on the stack


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def data(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value: int) -> bytes:
    return b"I" + str(value).encode() + b"\n"


def name(module: str, attribute: str) -> bytes:
    """GLOBAL, the opcode of protocols 0 to 3."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def stack_name(module: str, attribute: str) -> bytes:
    """STACK_GLOBAL, in which protocol 4 lets an attribute have dots."""
    return text(module) + text(attribute) + b"\x93"


def arguments(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def call(function: bytes, *values: bytes) -> bytes:
    """REDUCE."""
    return function + arguments(*values) + b"R"


def inst(module: str, attribute: str, *values: bytes) -> bytes:
    """INST: mark, arguments, then the name."""
    return b"(" + b"".join(values) + b"i" + module.encode() + b"\n" + attribute.encode() + b"\n"


def obj(function: bytes, *values: bytes) -> bytes:
    """OBJ: mark, class, arguments."""
    return b"(" + function + b"".join(values) + b"o"


def newobj(cls: bytes, *values: bytes) -> bytes:
    return cls + arguments(*values) + b"\x81"


def newobj_ex(cls: bytes, *values: bytes) -> bytes:
    return cls + arguments(*values) + b"}" + b"\x92"


def build(instance: bytes, state: bytes) -> bytes:
    return instance + state + b"b"


def table(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def getattr_of(value: bytes, attribute: str) -> bytes:
    return call(name("builtins", "getattr"), value, text(attribute))


def alone(expression: bytes, protocol: int = 4) -> bytes:
    """A whole pickle of the expression's object."""
    return b"\x80" + bytes([protocol]) + expression + b"."


def before(expression: bytes, honest: bytes) -> bytes:
    """The honest pickle, whose object is unchanged, with the expression evaluated first and its object dropped."""
    assert honest[:1] == b"\x80"
    return honest[:2] + expression + b"0" + honest[2:]


def touch(marker: Path) -> bytes:
    """A shell command as an argument."""
    return text(f"touch '{marker}'")


def python(marker: Path) -> bytes:
    """A Python expression as an argument."""
    return text(f"open({str(marker)!r}, 'w').close()")
