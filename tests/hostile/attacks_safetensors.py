"""Safetensors headers that lie about sizes, offsets, shapes and names, or are no proper JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save

from tests.hostile.attack import EXAMINED, USAGE, Attack, Ground, write
from tests.hostile.containers import state

NO_READ = "not a readable safetensors file"
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def raw(text: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def header(document: Any, content: bytes = b"", length: int | None = None) -> bytes:
    return raw(json.dumps(document).encode(), content, length)


def honest() -> tuple[dict[str, Any], bytes]:
    """The header and the data of the weights that fit."""
    content = save(state())
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def changed(**changes: Any) -> Callable[[], bytes]:
    """The honest file with the entry of one of its tensors changed."""

    def make() -> bytes:
        document, content = honest()
        document["0.weight"] = {**document["0.weight"], **changes}
        return header(document, content)

    return make


def renamed(name: str, more: bytes = b"") -> Callable[[], bytes]:
    def make() -> bytes:
        document, content = honest()
        document[name] = document.pop("0.weight")
        return header(document, content + more)

    return make


def _many_names() -> bytes:
    entry = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return raw(b"{" + b",".join(b'"%d":%s' % (number, entry) for number in range(1_000_002)) + b"}")


def _many_tiny_metadata() -> bytes:
    document, content = honest()
    document["__metadata__"] = {str(number): "x" for number in range(20_000)}
    return header(document, content)


def _with_raw_header(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    def make() -> bytes:
        document, content = honest()
        return raw(change(json.dumps(document).encode()), content)

    return make


def _duplicate(text: bytes) -> bytes:
    entry = json.dumps(json.loads(text)["0.bias"]).encode()
    return text[:-1] + b', "0.bias": ' + entry + b"}"


def _zeros() -> bytes:
    return header({"w": {"dtype": "F32", "shape": [1, 0, 2**62, 2**62], "data_offsets": [0, 0]}})


BAD: dict[str, Callable[[], bytes]] = {
    "header of 2^63 bytes": lambda: header({"a": F32}, bytes(4), 2**63),
    "header of 2^64-1 bytes": lambda: header({"a": F32}, bytes(4), 2**64 - 1),
    "header of 2^63-1 bytes": lambda: header({"a": F32}, bytes(4), 2**63 - 1),
    "header one byte longer than the file": lambda: header({"a": F32}, b"", len(json.dumps({"a": F32})) + 1),
    "header at the bound and no file": lambda: header({"a": F32}, bytes(4), 100_000_000),
    "overlap": changed(data_offsets=[1, 25]),
    "overlap of a whole tensor": lambda: header({"a": F32, "b": F32}, bytes(4)),
    "gap": lambda: header({"a": F32, "b": {**F32, "data_offsets": [8, 12]}}, bytes(12)),
    "bytes of no tensor": lambda: header({"a": F32}, bytes(4000)),
    "offsets beyond the file": changed(data_offsets=[2**40, 2**40 + 24]),
    "offsets backwards": changed(data_offsets=[24, 0]),
    "negative offsets": changed(data_offsets=[-24, 0]),
    "offsets of 2^64": changed(data_offsets=[2**64, 2**64 + 24]),
    "offsets as floats": changed(data_offsets=[0.0, 24.0]),
    "offsets as booleans": lambda: header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [False, True]}}, b"x"),
    "three offsets": changed(data_offsets=[0, 12, 24]),
    "offsets as text": changed(data_offsets="0:24"),
    "negative shape": changed(shape=[-2, -3]),
    "shape whose product overflows": changed(shape=[2**32, 2**32]),
    "shape whose product overflows to the size": changed(shape=[2**62, 4, 6]),
    "shape of a huge number": changed(shape=[10**4000]),
    "shape of ten thousand dimensions": changed(shape=[1] * 10_000),
    "shape as floats": changed(shape=[3.0, 2.0]),
    "shape as an object": changed(shape={"0": 3}),
    "unknown dtype": changed(dtype="F128"),
    "dtype as a list": changed(dtype=["F32"]),
    "dtype of lowercase": changed(dtype="f32"),
    "extra key": changed(device="cuda:0"),
    "tensor as a text": lambda: header({"a": "F32"}),
    "NaN": _with_raw_header(lambda text: text.replace(b"[3, 2]", b"[NaN, 2]")),
    "Infinity": _with_raw_header(lambda text: text.replace(b"[3, 2]", b"[Infinity]")),
    "duplicate tensor": _with_raw_header(_duplicate),
    "duplicate metadata": lambda: raw(b'{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}'),
    "duplicate escaped name": lambda: raw(
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    ),
    "arrays a million deep": lambda: raw(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "objects a hundred thousand deep": lambda: raw(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a million names": _many_names,
    "a name of a megabyte": renamed("n" * 1_000_000),
    "invalid UTF-8": _with_raw_header(lambda text: text.replace(b"0.bias", b"0.bi\xff\xfe")),
    "overlong UTF-8": _with_raw_header(lambda text: text.replace(b"0.bias", b"0.bi\xc0\xaf")),
    "byte order mark": lambda: struct.pack("<Q", 5) + b"\xef\xbb\xbf{}",
    "UTF-16": lambda: raw(json.dumps({"a": F32}).encode("utf-16-le"), bytes(4)),
    "a list": lambda: raw(b"[" + json.dumps(F32).encode() + b"]", bytes(4)),
    "an integer of a million digits": lambda: raw(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "trailing text": _with_raw_header(lambda text: text + b"{}"),
    "metadata of numbers": lambda: header({"__metadata__": {"a": 1}, "a": F32}, bytes(4)),
    "metadata as a list": lambda: header({"__metadata__": ["a"], "a": F32}, bytes(4)),
    "comments": _with_raw_header(lambda text: b"/* */" + text),
    "a control character in JSON": _with_raw_header(lambda text: text.replace(b"0.bias", b"0.bi\x01s")),
    "a half surrogate and a length": lambda: header({"\ud800": {**F32, "shape": [9]}}, bytes(4)),
}
MISMATCHED: dict[str, Callable[[], bytes]] = {
    "a null name": renamed(""),
    "a name that is a path": renamed("../../etc/passwd"),
    "a name that is an attribute": renamed("__class__.__init__.__globals__"),
    "a name of dots": renamed("....0.weight"),
    "a name of wrappers": renamed("module." * 100 + "weight"),
    "a name of format fields": renamed("{0.__class__}%s%n"),
    "empty and enormous": _zeros,
}


def _file(make: Callable[[], bytes], name: str = "model.safetensors") -> Callable[[Ground], Path]:
    return lambda ground: write(ground.download / name, make())


def _says(name: str) -> str:
    return "not a" if name in {"byte order mark", "a list", "comments"} else NO_READ


ATTACKS = [
    *(
        Attack(name=f"safetensors: {name}", make=_file(make), says=_says(name), everywhere="million" not in name)
        for name, make in BAD.items()
    ),
    *(
        Attack(name=f"safetensors: {name}", make=_file(make), says="do not fit the model", code=USAGE)
        for name, make in MISMATCHED.items()
    ),
    Attack(
        name="safetensors: twenty thousand entries of metadata",
        make=_file(_many_tiny_metadata),
        says="samdiag 0.",
        code=EXAMINED,
    ),
]
