"""Honest checkpoints of every pickle-bearing kind, each with room for a payload that runs before the honest part."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.cli.conftest import network
from tests.hostile.attack import Ground, write
from tests.hostile.opcodes import Payload, alone, before

Container = Callable[[Ground, Payload], Path]  # writes the hostile file; what to inspect


def state() -> dict[str, torch.Tensor]:
    """The honest weights, which fit problems.py."""
    return network().state_dict()


def torch_bytes(saved: Any) -> bytes:
    file = io.BytesIO()
    torch.save(saved, file)
    return file.getvalue()


def rewritten(content: bytes, change: Callable[[str, bytes], bytes], **more: bytes) -> bytes:
    """A stored zip archive with each member passed through `change`."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(new, "w") as archive:
        for entry in old.infolist():
            archive.writestr(entry.filename, change(entry.filename, old.read(entry)))
        for name, value in more.items():
            archive.writestr(name, value)
    return new.getvalue()


def injected(content: bytes, expression: bytes) -> bytes:
    """A file of torch.save whose pickle evaluates `expression` first and then is what it was."""
    return rewritten(content, lambda name, raw: before(expression, raw) if name.endswith("data.pkl") else raw)


def torch_file(filename: str, wrap: Callable[[dict[str, Any]], Any] = lambda found: found) -> Container:
    """A zip file of torch.save under any name; `wrap` puts the weights into what a script would have saved."""

    def make(ground: Ground, payload: Payload) -> Path:
        path = ground.download / filename
        return write(path, injected(torch_bytes(wrap(state())), payload(ground.marker)))

    return make


def plain_pickle(filename: str) -> Container:
    return lambda ground, payload: write(ground.download / filename, alone(payload(ground.marker)))


def pickled_state(filename: str) -> Container:
    """A pickle of the state dict with Python's own pickler: what `pickle.dump(model.state_dict())` writes."""

    def make(ground: Ground, payload: Payload) -> Path:
        return write(ground.download / filename, before(payload(ground.marker), pickle.dumps(state(), 2)))

    return make


def legacy(part: int) -> Container:
    """The layout of torch before 1.6, five pickles in a row: magic, protocol, system, object, keys."""

    def make(ground: Ground, payload: Payload) -> Path:
        file = io.BytesIO()
        torch.save(state(), file, _use_new_zipfile_serialization=False)
        content, pieces, start = file.getvalue(), [], 0
        reader = io.BytesIO(content)
        for _ in range(3):
            pickle.load(reader)
            pieces.append(content[start : reader.tell()])
            start = reader.tell()
        pieces.append(content[start:])
        pieces[part] = before(payload(ground.marker), pieces[part])
        return write(ground.download / "legacy.pt", b"".join(pieces))

    return make


def array_header(dtype: str, shape: tuple[int, ...], order: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": order, "shape": shape})
    return file.getvalue()


def object_array(expression: bytes) -> bytes:
    """A .npy member of dtype object: a header and a pickle."""
    return array_header("|O", (1,)) + alone(expression)


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path
