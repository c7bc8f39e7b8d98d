"""What lies in a run's folder: everything that looks like a checkpoint, with its sizes and times. No file is opened."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from samdiag.formats import adapter, fsdp_folder, huggingface, sharded, tree
from samdiag.formats.content import identity
from samdiag.formats.distributed_metadata import METADATA
from samdiag.formats.folder import TRAINER_STEP, Folder
from samdiag.formats.refused import DEEPSPEED_FILE

MAX_DEPTH = 5  # folders below the watched one; Lightning's lightning_logs/version_0/checkpoints is 3
TEMPORARY_ENDS = (".tmp", ".temp", ".partial", ".part", ".incomplete", ".crdownload")
TEMPORARY_STARTS = (".", "tmp-", "tmp_checkpoint")  # transformers wrote tmp-checkpoint-500 and renamed it
INNER = re.compile(r"(pytorch_model_fsdp|optimizer)_\d+")  # accelerate's folders inside one checkpoint

Stamp = tuple[tuple[str, tuple[int, int, int, int]], ...]  # name and identity of every file, sorted


class Kind(StrEnum):
    """What a checkpoint is on the disk."""

    FILE = "file"
    INDEX = "index"  # of shards that lie among other checkpoints
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something that looks like a checkpoint, as it was at one moment.

    Attributes:
        path: with the watched folder as it was named in front.
        kind: file, index, or folder.
        stamp: what tells this state of it from another, without reading it.
    """

    path: str
    kind: Kind
    stamp: Stamp

    @property
    def modified(self) -> float:
        """When it was last written to, in seconds since 1970, by the file system's clock."""
        return max((own[3] for _, own in self.stamp), default=0) / 1e9

    def touched(self) -> float:
        """When anything last happened to one of its files, in seconds since 1970; infinite where one is gone.

        Unlike `modified`, no copying program sets it back to that of the original.
        """
        folder = self.path if self.kind is Kind.FOLDER else os.path.dirname(self.path)
        try:
            return max((os.stat(os.path.join(folder, name)).st_ctime for name, _ in self.stamp), default=math.inf)
        except OSError:
            return math.inf


def is_temporary(name: str) -> bool:
    """Whether a name says that it is hidden, or not yet what it will be."""
    return name.startswith(TEMPORARY_STARTS) or name.endswith(TEMPORARY_ENDS) or ".tmp-" in name or ".tmp." in name


def look(root: str, wanted: Callable[[str], bool] | None = None) -> list[Sighting]:
    """Everything in the folder `root` and below that looks like a checkpoint, by names, sizes and times alone.

    A recognised checkpoint folder is one sighting. Links to what lies in `root` itself are passed over: it is seen
    under its own name.

    Args:
        root: the folder; what it holds that cannot be listed is not seen.
        wanted: whether a path is; None: all are.

    Raises:
        OSError: `root` itself cannot be listed.
    """
    found = _scan(root, os.path.realpath(root), 0)
    if root == os.curdir:  # "./a.pt" is "a.pt", as a record spells it
        found = (replace(seen, path=os.path.relpath(seen.path)) for seen in found)
    return [seen for seen in found if wanted is None or wanted(seen.path)]


def glance(sighting: Sighting) -> Stamp | None:
    """The stamp of the same checkpoint now; None where it is gone."""
    try:
        if sighting.kind is Kind.FILE:
            return ((os.path.basename(sighting.path), identity(os.stat(sighting.path))),)
        folder = sighting.path if sighting.kind is Kind.FOLDER else os.path.dirname(sighting.path)
        entries = _listed(folder)
        if sighting.kind is Kind.FOLDER:
            return _folder_stamp(entries)
        index = os.path.basename(sighting.path)
        return _index_stamp(index, entries) if any(entry.name == index for entry in entries) else None
    except OSError:
        return None


def _listed(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _scan(folder: str, home: str, depth: int) -> Iterator[Sighting]:
    """The sightings of one folder and those below; `home` is the real path of the watched one."""
    entries = _listed(folder)
    names = frozenset(entry.name for entry in entries)
    whole = depth > 0 or METADATA in names  # a run's own folder may hold its last model beside its checkpoints
    if whole and _is_checkpoint(folder, names):
        yield Sighting(folder, Kind.FOLDER, _folder_stamp(entries))
        entries = [entry for entry in entries if TRAINER_STEP.fullmatch(entry.name)]
    for entry in entries:
        if is_temporary(entry.name) or _leads_back(entry, home):
            continue
        try:
            if entry.is_dir():
                if depth < MAX_DEPTH and entry.name not in tree.PASSED_OVER:
                    yield from _scan(entry.path, home, depth + 1)
            elif entry.name.endswith(sharded.SUFFIXES):
                yield Sighting(entry.path, Kind.INDEX, _index_stamp(entry.name, entries))
            elif _may_be_weights(entry.name) and entry.is_file():
                yield Sighting(entry.path, Kind.FILE, ((entry.name, identity(entry.stat())),))
        except OSError:  # it vanished, or may not be read
            continue


def _leads_back(entry: os.DirEntry[str], home: str) -> bool:
    """Whether it is a link to something in the watched folder, which is seen there: `latest`, `last.ckpt`.

    Or to a folder around the watched one, which would show everything twice.
    """
    if not entry.is_symlink():
        return False
    real = os.path.realpath(entry.path)
    return os.path.commonpath([real, home]) in (real, home)


def _is_checkpoint(folder: str, names: frozenset[str]) -> bool:
    """Whether a folder is one checkpoint, or what will be one when the rest of it is there.

    Weights called `model.safetensors` beside `step-100.safetensors` are one checkpoint of several.
    """
    if METADATA in names or any(name.endswith(".distcp") or DEEPSPEED_FILE.fullmatch(name) for name in names):
        return True
    listed = Folder(path=Path(folder), names=names)
    if adapter.recognises(listed) or fsdp_folder.recognises(listed):
        return True
    shards = any(huggingface.SHARD.fullmatch(name) for name in names)
    if not shards and not huggingface.recognises(listed):
        return False
    own = (*huggingface.WEIGHTS, *adapter.WEIGHTS)
    return huggingface.CONFIG in names or not any(_may_be_weights(name) for name in names if name not in own)


@functools.lru_cache(maxsize=65536)  # names: a poll asks the same ones again
def _may_be_weights(name: str) -> bool:
    """Whether a file could be a checkpoint of its own: not a shard, nor what a run keeps beside its weights."""
    shard = huggingface.SHARD.fullmatch(name) or DEEPSPEED_FILE.fullmatch(name)
    return tree.has_suffix(name) and not shard and not tree.is_beside(name)


def _folder_stamp(entries: list[os.DirEntry[str]]) -> Stamp:
    """Of all files directly in a checkpoint's folder and in the folders that are parts of it."""
    found = []
    for entry in entries:
        try:
            if entry.is_file():
                found.append((entry.name, identity(entry.stat())))
            elif INNER.fullmatch(entry.name) and entry.is_dir():
                inner = _folder_stamp(_listed(entry.path))
                found.extend((f"{entry.name}/{name}", own) for name, own in inner)
        except OSError:
            continue
    return tuple(found)


def _index_stamp(index: str, entries: list[os.DirEntry[str]]) -> Stamp:
    """Of an index and of the shards that its name speaks of."""
    base = index.removesuffix(sharded.SUFFIX).rpartition(".")[0]
    shards = (entry for entry in entries if (found := huggingface.SHARD.fullmatch(entry.name)) and found[1] == base)
    own = (entry for entry in entries if entry.name == index)
    return tuple((entry.name, identity(entry.stat())) for entry in (*own, *shards))
