"""One JSON file per case under a folder, and the checkpoint beside it: written whole or not at all.

A case's sections are `case`, `truth`, `judged` and `rescue`, each with the commit that made it.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import samdiag.instruments
import samdiag.probes
import samdiag.remedies
import samdiag.types
from samdiag.types import Measurements
from samdiag.whole_file import replacing

ROOT = Path(__file__).resolve().parents[2]


class Store:
    """The cases in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, case: str, ending: str = ".json") -> Path:
        return self.folder / f"{case}{ending}"

    def load(self, case: str) -> dict[str, Any]:
        """The case's sections so far; empty where there is none."""
        path = self.path(case)
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def save(self, case: str, content: dict[str, Any]) -> None:
        """Replaces the case's file in one go, so that a killed run leaves the old one."""
        text = json.dumps(content, indent=1, ensure_ascii=False)
        _atomically(self.path(case), lambda path: path.write_text(text + "\n", encoding="utf-8"))

    def save_point(self, case: str, state: dict[str, Tensor], velocity: list[Tensor]) -> None:
        """The checkpoint: the network's state and the momentum buffer."""
        _atomically(self.path(case, ".pt"), lambda path: torch.save({"state": state, "velocity": velocity}, path))

    def load_point(self, case: str) -> tuple[dict[str, Tensor], list[Tensor]]:
        """(state, velocity) of the checkpoint."""
        found = torch.load(self.path(case, ".pt"), weights_only=True)
        return found["state"], found["velocity"]

    def has_point(self, case: str) -> bool:
        return self.path(case, ".pt").is_file()

    def cases(self) -> Iterator[dict[str, Any]]:
        """Every stored case that has its truth, in the order of their names."""
        for path in sorted(self.folder.glob("*/*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            if "truth" in content:
                yield content


def _atomically(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        write(Path(beside))


@cache
def commit() -> str:
    """The commit of the working tree, with a plus sign where it has been changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain", "samdiag") else "")


CLASSES: dict[str, type] = {
    name: kind
    for module in (samdiag.types, samdiag.instruments, samdiag.remedies, samdiag.probes)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}


def encode(value: Any) -> Any:
    """Frozen dataclasses as JSON objects that `decode` reads back; floats keep NaN and infinity."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, str) else value


def decode(value: Any) -> Any:
    """The value again; fields that a class no longer has are dropped, new ones take their defaults."""
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if isinstance(value, dict) and "class" in value:
        kind = CLASSES[value["class"]]
        known = {f.name for f in dataclasses.fields(kind) if f.init}
        return kind(**{name: decode(item) for name, item in value.items() if name in known})
    return value


def measurements(case: dict[str, Any]) -> Measurements:
    """What was measured at a stored case: `samdiag.verdicts.judge_all` takes it."""
    found = decode(case["judged"]["measurements"])
    assert isinstance(found, Measurements)
    return found
