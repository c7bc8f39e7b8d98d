"""A proposal for a file in another folder: its paths are relative to that folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from samdiag.guessing.proposal import Candidate, Part, Proposal

PATHS = ("tensors", "folder", "webdataset", "root", "data_files", "tokenizer")  # keys of data that name paths
NO_PATHS = ("checkpoint",)  # of tokenizer: the checkpoint's own folder


def moved(proposal: Proposal, folder: Path, target: Path) -> Proposal:
    """The proposal made in `folder`, for a file in the folder `target`."""
    back = Path(os.path.relpath(folder.resolve(), target.resolve()))
    if back == Path():
        return proposal
    return replace(
        proposal,
        parts=tuple(_part(part, back) for part in proposal.parts),
        pythonpath=tuple(str(back / entry) for entry in proposal.pythonpath),
    )


def _part(part: Part, back: Path) -> Part:
    def there(candidate: Candidate) -> Candidate:
        return replace(candidate, value=_value(candidate.value, back))

    chosen = None if part.chosen is None else there(part.chosen)
    return replace(part, chosen=chosen, others=tuple(map(there, part.others)))


def _value(value: Any, back: Path) -> Any:
    if isinstance(value, str):
        return _reference(value, back)
    if not isinstance(value, Mapping):
        return value
    said = {key: _path(item, back) if key in PATHS else item for key, item in value.items()}
    if isinstance(value.get("python"), str):
        said["python"] = _reference(value["python"], back)
    return said


def _reference(said: str, back: Path) -> str:
    """`file.py:name` from there; a module's name or a catalog's as it is."""
    file, colon, name = said.rpartition(":")
    return f"{(back / file).as_posix()}:{name}" if colon and file.endswith(".py") else said


def _path(said: Any, back: Path) -> Any:
    if isinstance(said, list):
        return [_path(item, back) for item in said]
    return (back / said).as_posix() if isinstance(said, str) and said not in NO_PATHS and said[:1] != "~" else said
