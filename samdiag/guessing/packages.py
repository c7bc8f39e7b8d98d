"""Installed packages found by name and read as text; none is imported, and neither is any package above it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from samdiag.errors import UsageError
from samdiag.guessing.sources import Source, read_package
from samdiag.quoting import quoted
from samdiag.suggesting import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package whose sources are searched.

    Attributes:
        name: of its outermost package.
        sources: its files, named as they would be imported.
        pythonpath: the folder it lies in, where the user named a folder; None where it is on `sys.path`.
    """

    name: str
    sources: tuple[Source, ...]
    pythonpath: str | None = None


def find_package(said: str, folder: Path) -> Package:
    """The package `said`: a name that could be imported, or the path of a package's folder.

    Args:
        said: "torchvision", "torchvision.models", or "cache/facenet_pytorch".
        folder: what paths are relative to.

    Raises:
        UsageError: there is none.
    """
    path = folder / Path(said).expanduser()
    if (os.sep in said or said.startswith(".") or path.is_dir()) and path.is_dir():
        lies_in = os.path.relpath(path.resolve().parent, folder)
        name = path.resolve().name
        return Package(name=name, sources=tuple(read_package(path, name)), pythonpath=lies_in)
    first, *inner = said.split(".")
    for entry in sys.path:
        found = Path(entry or ".", first)
        if entry and found.is_dir() and found.joinpath(*inner).is_dir():
            return Package(name=first, sources=tuple(read_package(found.joinpath(*inner), said)))
    what = f"--search {quoted(said)}: no such package is installed{did_you_mean(first, _installed())}"
    raise UsageError(what, "name an installed package, or the path of a package's folder")


def _installed() -> list[str]:
    """The names of the packages on `sys.path`."""
    found: set[str] = set()
    for entry in sys.path:
        if entry and Path(entry).is_dir():
            found |= {item.name for item in Path(entry).iterdir() if (item / "__init__.py").is_file()}
    return sorted(found)
