"""Numpy's .npz files: every array's claim is held against the archive before anything is inflated; no pickles."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samdiag.errors import CannotDecide
from samdiag.formats.safetensors_header import MAX_DIMENSIONS, MAX_NAME_LENGTH
from samdiag.quoting import quoted, shown

MAX_ARRAYS = 10_000
MAX_HEADER = 10_000  # characters of one array's header; numpy's own bound
FREE_BYTES = 1 << 30  # inflating to this is no attack
MAX_RATIO = 50  # beyond it, of inflated to stored; real data sets reach some 10, zeros 1000
KINDS = "biuf"  # truth values, integers, floats: what a tensor can hold
SAVE_AGAIN = "write it with numpy.savez from arrays of numbers"


def read_archive(path: Path) -> dict[str, Tensor]:
    """The arrays as tensors by name.

    Raises:
        CannotDecide: it is damaged, claims more than it holds, would inflate without measure, or holds objects.
    """
    name = shown(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_sizes(members, path.stat().st_size, name)
            return {member.filename.removesuffix(".npy"): _array(archive, member, name) for member in members}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:  # names not UTF-8
        raise _damaged(name, shown(error)) from None


def _check_sizes(members: list[zipfile.ZipInfo], stored: int, name: str) -> None:
    if len(members) > MAX_ARRAYS:
        raise _damaged(name, f"it has {len(members)} entries, more than the {MAX_ARRAYS} allowed")
    if len({member.filename for member in members}) != len(members):
        raise _damaged(name, "it names an array twice")
    inflated = sum(member.file_size for member in members)
    if inflated > max(FREE_BYTES, MAX_RATIO * stored):
        raise _damaged(name, f"its {stored} bytes would inflate to {inflated}")
    for member in members:
        if not member.filename.endswith(".npy") or len(member.filename) > MAX_NAME_LENGTH:
            raise _damaged(name, f"its entry {quoted(member.filename)} is no array")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Tensor:
    """One array: header checked against the entry's size, then exactly that many bytes."""
    import numpy as np

    label = f"array {quoted(member.filename.removesuffix('.npy'))}"
    with archive.open(member) as file:
        try:
            shape, column_major, dtype = _header(file)
        except Exception as error:  # numpy parses it as Python's literals, by way of ast and of tokenize
            raise _damaged(name, f"{label} has no valid header ({shown(error)})") from None
        if dtype.kind not in KINDS or dtype.hasobject:
            raise _damaged(name, f"{label} holds {shown(dtype)}, which are no numbers that a tensor has")
        if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
            raise _damaged(name, f"{label} has the shape {quoted(shape)}")
        needed = math.prod(shape) * dtype.itemsize
        if needed != member.file_size - file.tell():
            raise _damaged(name, f"{label} needs {needed} bytes and has {member.file_size - file.tell()}")
        data = file.read(needed)
        if len(data) != needed:
            raise _damaged(name, f"{label} is truncated")
    flat = np.frombuffer(bytearray(data), dtype=dtype)
    found = flat.reshape(shape, order="F" if column_major else "C")
    try:
        return torch.from_numpy(np.ascontiguousarray(found.astype(dtype.newbyteorder("="), copy=False)))
    except TypeError:
        raise _damaged(name, f"{label} holds {shown(dtype)}, which no tensor has") from None


def _header(file: Any) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether columns come first, and dtype."""
    from numpy.lib import format as layout

    version = layout.read_magic(file)
    if version == (1, 0):
        found = layout.read_array_header_1_0(file, max_header_size=MAX_HEADER)
    elif version == (2, 0):
        found = layout.read_array_header_2_0(file, max_header_size=MAX_HEADER)
    else:
        raise ValueError(f"version {version[0]}.{version[1]}")
    return found


def _damaged(name: str, reason: str) -> CannotDecide:
    return CannotDecide(f"{name} is not a readable .npz file: {reason}", SAVE_AGAIN)
