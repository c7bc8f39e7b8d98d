"""The index of timm's and torchvision's models (benchmarks/architecture_index.py), read without either library."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

INDEX = "architectures.json"


@functools.cache
def read_index() -> dict[str, Any]:
    """`versions` of the libraries, and `architectures`: hash of names → rows of library, name, heads, body."""
    document: dict[str, Any] = json.loads((resources.files(__package__) / INDEX).read_text(encoding="utf-8"))
    return document


def model_names(library: str) -> list[str]:
    """The names of a library's models, sorted."""
    rows = read_index()["architectures"].values()
    return sorted({row[1] for group in rows for row in group if row[0] == library})
