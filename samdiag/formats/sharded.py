"""Sharded checkpoints: an index that says which file holds which tensor, and those files beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats import safetensors_file
from samdiag.formats.checkpoint import Checkpoint, TensorInfo
from samdiag.formats.content import Content
from samdiag.formats.folder import Folder, fingerprint, is_bare, read_object, surroundings
from samdiag.formats.recognition import Format
from samdiag.formats.safetensors_header import MAX_NAME_LENGTH, MAX_TENSORS, read_header
from samdiag.formats.state_dict import strip_prefixes
from samdiag.quoting import listed, quoted, shown

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".index.json"
SUFFIXES = (f".safetensors{SUFFIX}", f".bin{SUFFIX}")  # other frameworks have others: .h5, .msgpack
MAX_INDEX_BYTES = 100_000_000  # as for the header of a safetensors file: a million names of 100 characters
MAX_SHARDS = 10_000  # the largest models have some 200
SAVE_AGAIN = "index and shards are not of one save: copy or download all of them again, or save again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of a sharded checkpoint: the names in it, as stored, and how to read it; what a header says of them."""

    content: Content
    names: frozenset[str]
    read: Callable[[], dict[str, Tensor]]
    infos: Mapping[str, TensorInfo] | None = None


def recognises(content: Content) -> bool:
    """Whether it is a JSON object with a `weight_map`, or is called an index."""
    is_object = content.prefix.lstrip()[:1] == b"{"
    return is_object and (b'"weight_map"' in content.prefix or content.path.name.endswith(SUFFIX))


def open_content(content: Content) -> Checkpoint:
    """The Checkpoint of all shards; of safetensors from their headers alone, without torch."""
    weight_map = read_index(content)
    folder = surroundings(content.path, set(weight_map.values()))
    shards = _open_shards(folder, content, weight_map)

    def load(which: str) -> dict[str, Tensor]:
        if which == "ema":
            raise UsageError(f"{content.name} holds no EMA weights", "ask for weights = raw")
        content.check_unchanged()
        return _read_all(shards)

    files = {content.path.name: content.fingerprint()}
    files |= {shard.content.path.name: shard.content.fingerprint() for shard in shards}
    infos = _infos(shards)
    return Checkpoint(
        path=content.path,
        format="sharded",
        fingerprint=fingerprint(files),
        load=load,
        load_infos=(lambda: infos) if infos else None,
    )


def _infos(shards: list[Shard]) -> dict[str, TensorInfo]:
    """What the headers say, by cleaned-up name; nothing where a shard has none."""
    found = [shard.infos for shard in shards if shard.infos is not None]
    return strip_prefixes({n: i for infos in found for n, i in infos.items()}) if len(found) == len(shards) else {}


def read_index(content: Content) -> dict[str, str]:
    """Tensor name → file name, every file name bare.

    Raises:
        CannotDecide: the index is too large, not JSON, or not what an index is.
    """
    weight_map = read_object(content, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _bad(content, "it has no table weight_map")
    if len(weight_map) > MAX_TENSORS:
        raise _bad(content, f"it claims {len(weight_map)} tensors, more than the {MAX_TENSORS} allowed")
    for name, file in weight_map.items():
        if len(name) > MAX_NAME_LENGTH:
            raise _bad(content, f"a tensor's name has {len(name)} characters, more than the {MAX_NAME_LENGTH} allowed")
        if not isinstance(file, str) or not is_bare(file):
            raise _bad(content, f"tensor {quoted(name)} is said to be in {quoted(file)}, which is no bare file name")
    if len(set(weight_map.values())) > MAX_SHARDS:
        raise _bad(content, f"it names more than {MAX_SHARDS} files")
    return weight_map


def _bad(content: Content, reason: str) -> CannotDecide:
    return CannotDecide(f"{content.name} is not the index of a sharded checkpoint: {reason}", "save it again")


def _open_shards(folder: Folder, index: Content, weight_map: Mapping[str, str]) -> list[Shard]:
    """The shards, each with exactly the tensors that the index says."""
    expected: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        expected.setdefault(file, set()).add(name)
    missing = sorted(file for file in expected if file not in folder)
    if missing:
        todo = "copy or download the missing files into the same folder"
        raise CannotDecide(f"{index.name} names files that are missing: {listed(missing)}", todo)
    shards = [_open_shard(folder.file(file, said_by=index.path.name)) for file in sorted(expected)]
    for shard in shards:
        _check_names(shard, expected[shard.content.path.name], weight_map)
    return shards


def _check_names(shard: Shard, expected: set[str], weight_map: Mapping[str, str]) -> None:
    name = shard.content.name
    lacking = sorted(expected - shard.names)
    if lacking:
        raise CannotDecide(f"{name} lacks tensors that the index says are in it: {listed(lacking)}", SAVE_AGAIN)
    for extra in sorted(shard.names - expected):
        place = f"which the index places in {shown(weight_map[extra])}" if extra in weight_map else "not in the index"
        raise CannotDecide(f"{name} holds the tensor {quoted(extra)}, {place}", SAVE_AGAIN)


def _open_shard(content: Content) -> Shard:
    if safetensors_file.recognises(content):
        infos = safetensors_file.tensor_infos(read_header(content.path))
        read = functools.partial(safetensors_file.read_tensors, content)
        return Shard(content=content, names=frozenset(infos), read=read, infos=infos)
    from samdiag.formats.torch_saved import read_tensors

    tensors = read_tensors(content)
    return Shard(content=content, names=frozenset(tensors), read=lambda: tensors)


def _read_all(shards: list[Shard]) -> dict[str, Tensor]:
    """The tensors of all shards, read one shard after the other."""
    found: dict[str, Tensor] = {}
    for shard in shards:
        shard.content.check_unchanged()  # what was checked is what is read
        found |= shard.read()
    return strip_prefixes(found)


FORMAT = Format(recognises=recognises, open=open_content)
