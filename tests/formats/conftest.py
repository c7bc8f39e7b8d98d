"""Small checkpoint files, honest and hostile."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

Write = Callable[..., Path]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def write_safetensors(tmp_path: Path) -> Write:
    """A safetensors file from a header given as an object, text or length, and data bytes."""

    def write(header: Any, data: bytes = b"", *, length: int | None = None, name: str = "a.safetensors") -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / name
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
        return path

    return write


@pytest.fixture
def save(tmp_path: Path) -> Write:
    """A file of torch.save."""

    def write(saved: Any, name: str = "a.pt", **options: Any) -> Path:
        path = tmp_path / name
        torch.save(saved, path, **options)
        return path

    return write
