"""The header of a safetensors file, parsed and bounded by hand, without torch and without reading the tensors.

Layout: 8 bytes, little-endian header length N; N bytes of JSON; the tensors' bytes, without gaps.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdiag.errors import CannotDecide
from samdiag.formats.content import reading
from samdiag.formats.json_text import parse_json
from samdiag.quoting import quoted, shown

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the bound of the safetensors library itself
MAX_TENSORS = 1_000_000  # the largest models have some 10⁴ tensors
MAX_NAME_LENGTH = 1024  # characters; module paths are some 100
MAX_DIMENSIONS = 64  # torch's own limit
DTYPE_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "F8_E8M0": 1},
    **{"I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8},
}
SAVE_AGAIN = "copy or download the file again, or save it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """Where a tensor lies: its bytes are data[begin:end]."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header whose every claim was checked against the file's size."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int  # offset in the file of the first tensor's bytes
    raw: Mapping[str, Any]  # the JSON object itself


def read_header(path: Path) -> Header:
    """The header of the file at `path`.

    Raises:
        CannotDecide: the header is longer than the file, not JSON, or contradicts itself or the file's size.
    """
    name = shown(path)
    with reading(path), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            raise _damaged(name, f"its header claims {length} bytes, more than the {MAX_HEADER_BYTES} allowed")
        if length > size - LENGTH_BYTES:
            raise _damaged(name, f"it is truncated: its header claims {length} bytes and the file has {size}")
        text = file.read(length)
    document = _parse(name, text)
    metadata = _metadata(name, document.get("__metadata__"))
    tensors = _tensors(name, document)
    data_start = LENGTH_BYTES + length
    _check_layout(name, tensors, num_bytes=size - data_start)
    return Header(tensors=tensors, metadata=metadata, data_start=data_start, raw=document)


def _damaged(name: str, reason: str) -> CannotDecide:
    return CannotDecide(f"{name} is not a readable safetensors file: {reason}", SAVE_AGAIN)


def _parse(name: str, text: bytes) -> dict[str, Any]:
    try:
        document = parse_json(text)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _damaged(name, f"its header is not valid JSON ({shown(error)})") from None
    if not isinstance(document, dict):
        raise _damaged(name, "its header is not a JSON object")
    return document


def _metadata(name: str, found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _damaged(name, "its __metadata__ is not a table of texts")
    return found


def _tensors(name: str, document: Mapping[str, Any]) -> dict[str, TensorEntry]:
    if len(document) > MAX_TENSORS:
        raise _damaged(name, f"it claims {len(document)} tensors, more than the {MAX_TENSORS} allowed")
    return {key: _entry(name, key, item) for key, item in document.items() if key != "__metadata__"}


def _entry(name: str, key: str, item: Any) -> TensorEntry:
    """The entry of one tensor, its size checked against its dtype and shape."""
    if len(key) > MAX_NAME_LENGTH:
        raise _damaged(name, f"a tensor's name has {len(key)} characters, more than the {MAX_NAME_LENGTH} allowed")
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(name, f"tensor {quoted(key)} has no dtype, shape and data_offsets")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _damaged(name, f"tensor {quoted(key)} has the unknown dtype {quoted(dtype)}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _damaged(name, f"tensor {quoted(key)} has the shape {quoted(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(name, f"tensor {quoted(key)} has the offsets {quoted(offsets)}")
    needed = math.prod(shape) * DTYPE_BYTES[dtype]
    if needed != offsets[1] - offsets[0]:
        reason = f"needs {quoted(needed)} bytes for {dtype} {quoted(shape)} and has {offsets[1] - offsets[0]}"
        raise _damaged(name, f"tensor {quoted(key)} {reason}")
    return TensorEntry(dtype=dtype, shape=tuple(shape), begin=offsets[0], end=offsets[1])


def _are_counts(found: Any) -> bool:
    """Whether it is a list of integers that a 64-bit offset can hold."""
    return isinstance(found, list) and all(type(item) is int and 0 <= item < 2**63 for item in found)


def _check_layout(name: str, tensors: Mapping[str, TensorEntry], num_bytes: int) -> None:
    """Nothing, or CannotDecide unless the tensors lie one after another from the first data byte to the last."""
    expected = 0
    for key, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin < expected:
            raise _damaged(name, f"tensor {quoted(key)} overlaps another: it begins at byte {entry.begin} of the data")
        if entry.begin > expected:
            raise _damaged(name, f"bytes {expected} to {entry.begin} of the data belong to no tensor")
        if entry.end > num_bytes:
            reason = f"tensor {quoted(key)} ends at byte {entry.end} of the data, of which {num_bytes} are there"
            raise _damaged(name, f"it is truncated: {reason}")
        expected = entry.end
    if expected != num_bytes:
        raise _damaged(name, f"the last {num_bytes - expected} bytes belong to no tensor")
