"""Problems that are built once and used for every checkpoint of the same settings."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.encoding import jsonable
from samdiag.formats import Checkpoint
from samdiag.keeping import Keep
from samdiag.spec.data.tokenizers import FILES, OWN, TOKENIZERS
from samdiag.spec.discover import Resolution
from samdiag.spec.merging import PARTS

if TYPE_CHECKING:
    from samdiag.spec.build import Built

KEPT = 2  # problems at a time: a list may hold two kinds of checkpoints in turn; more would fill the device
DECIDING = ("problem", *PARTS, "measure.seed", "measure.samples", "download")  # what a problem is made from


class Workshop:
    """Problems by what decides them; the weights in them are those of the last checkpoint."""

    def __init__(self) -> None:
        self._built: OrderedDict[str, Built] = OrderedDict()

    def made(self, resolution: Resolution, checkpoint: Checkpoint, make: Callable[[], Built]) -> Built:
        """The problem for these settings: of an earlier checkpoint, or what `make` returns."""
        key = _key(resolution, checkpoint)
        if key not in self._built:
            built = make()
            self._built[key] = replace(built, problem=replace(built.problem, keep=Keep()))
        self._built.move_to_end(key)
        while len(self._built) > KEPT:
            self._built.popitem(last=False)
        return self._built[key]

    def clear(self) -> None:
        """Forgets everything: after an error nobody foresaw, the next checkpoint starts afresh."""
        self._built.clear()


def _key(resolution: Resolution, checkpoint: Checkpoint) -> str:
    """What decides the problem: who says what with which trust, where names are looked up, and what the checkpoint's
    own folder contributes.
    """
    said = {name: resolution.settings[name] for name in DECIDING if name in resolution.settings}
    document = {
        "said": {name: [jsonable(setting.value), setting.source, setting.trust] for name, setting in said.items()},
        "places": {name: [place.folder, place.importable] for name, place in resolution.places.items()},
        "pythonpath": resolution.pythonpath,
        "beside": [name for name, place in resolution.places.items() if _same(place.folder, checkpoint.folder)],
        "config": checkpoint.config,
        "tokenizer": list(_tokenizer(said, checkpoint)),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _tokenizer(said: Mapping[str, Any], checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """The tokenizer's files beside the checkpoint, where the data says that it is that one's own."""
    data = said["data"].value if "data" in said else {}
    if not isinstance(data, Mapping) or data.get("tokenizer") != OWN:
        return
    for file in sorted({file for pattern in (*TOKENIZERS, *FILES) for file in checkpoint.folder.glob(pattern)}):
        if file.is_file():
            yield file.name, hashlib.sha256(file.read_bytes()).hexdigest()
