"""The `.metadata` of a torch.distributed.checkpoint folder: which tensors there are and where their pieces lie.

torch's own reader unpickles it, which runs whatever it says. Here it is a tree of plain values (`inert_pickle`), and
every claim of that tree is checked: names are bare, pieces lie inside the files, cover their tensor exactly, and take
no more room than the files have.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from samdiag.errors import CannotDecide
from samdiag.formats.content import Content, reading
from samdiag.formats.folder import Folder, is_bare
from samdiag.formats.inert_pickle import NO_STATE, Name, Object, Refused, read_pickle
from samdiag.formats.safetensors_header import MAX_DIMENSIONS, MAX_NAME_LENGTH, MAX_TENSORS
from samdiag.quoting import quoted, shown

METADATA = ".metadata"
MAX_METADATA_BYTES = 256_000_000  # some 300 bytes per piece: a million pieces
MAX_OVERLAP_CHECKS = 10_000_000  # pairs of pieces of one tensor; pieces along one axis need one each
DTYPE_BYTES = {
    **{"bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1},
    **{"float8_e5m2fnuz": 1, "float8_e8m0fnu": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2},
    **{"int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8, "complex64": 8, "complex128": 16},
}
CHECKPOINT = "torch.distributed.checkpoint.metadata"
OLDER = "torch.distributed._shard.sharded_tensor.metadata"  # where TensorProperties lived before torch 2.4
STORAGE_INFO = Name("torch.distributed.checkpoint.filesystem", "_StorageInfo")
ALLOWED = {
    *((CHECKPOINT, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata")),
    *((CHECKPOINT, name) for name in ("ChunkStorageMetadata", "BytesStorageMetadata", "TensorProperties")),
    *((CHECKPOINT, "_MEM_FORMAT_ENCODING"), (OLDER, "TensorProperties"), (OLDER, "MEM_FORMAT_ENCODING")),
    (STORAGE_INFO.module, STORAGE_INFO.name),
    *(("torch", name) for name in ("Size", *DTYPE_BYTES)),
    ("torch.serialization", "_get_layout"),
    *((module, f"{kind}Path") for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "")),
}
SAVE_AGAIN = "copy or download the whole folder again, or save it again with torch.distributed.checkpoint.save"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Bytes `begin` to `begin + length` of a file of the folder: one stream of torch.save."""

    file: str
    begin: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A box of a tensor, `sizes` from `offsets` on, and where it is stored."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor whose pieces cover it exactly."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a folder holds, every claim checked.

    Attributes:
        tensors: by flat name ("model.0.weight").
        values: anything else that was saved, by flat name.
        paths: flat name → the keys through the nested dictionaries that were saved ("model", "0.weight").
        nested: whether the folder says these paths; else every path is the flat name alone.
        files: the data files, by name.
    """

    tensors: Mapping[str, StoredTensor]
    values: Mapping[str, Place]
    paths: Mapping[str, Path]
    nested: bool
    files: Mapping[str, Content]


class _Bad(ValueError):
    """What is wrong with the metadata, as the end of a sentence."""


def read_layout(folder: Folder, metadata: Content) -> Layout:
    """The layout of the folder.

    Raises:
        CannotDecide: the metadata wants code to run, is damaged, or contradicts itself or the files.
    """
    if metadata.size > MAX_METADATA_BYTES:
        raise CannotDecide(
            f"{metadata.name} has {metadata.size} bytes, more than the {MAX_METADATA_BYTES} allowed", SAVE_AGAIN
        )
    with reading(metadata.path):
        data = metadata.path.read_bytes()
    metadata.check_unchanged()
    try:
        tree = _attributes(read_pickle(data, ALLOWED), (CHECKPOINT, "Metadata"))
        return _read_tree(folder, tree)
    except Refused as error:
        raise CannotDecide(
            f"{metadata.name} is a pickle that does more than describe a checkpoint: {shown(error)}",
            "never load it with torch either unless you trust who wrote it; else gather and save the full weights",
        ) from None
    except _Bad as error:
        raise CannotDecide(f"{metadata.name} is damaged: {error}", SAVE_AGAIN) from None
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise CannotDecide(f"{metadata.name} is damaged: {type(error).__name__} in its pickle", SAVE_AGAIN) from None


def _read_tree(folder: Folder, tree: Mapping[str, Any]) -> Layout:
    entries = tree.get("state_dict_metadata")
    if type(entries) is not dict or not all(type(name) is str for name in entries):
        raise _Bad("it has no table of what was saved")
    if len(entries) > MAX_TENSORS or any(len(name) > MAX_NAME_LENGTH for name in entries):
        raise _Bad(f"it holds more than {MAX_TENSORS} entries, or a name of more than {MAX_NAME_LENGTH} characters")
    places = _places(tree.get("storage_data"))
    tensors = {
        name: _tensor(name, entry, places)
        for name, entry in entries.items()
        if _is(entry, (CHECKPOINT, "TensorStorageMetadata"))
    }
    values = {
        name: _place_of(places, name, None)
        for name, entry in entries.items()
        if _is(entry, (CHECKPOINT, "BytesStorageMetadata"))
    }
    if len(tensors) + len(values) != len(entries):
        raise _Bad("an entry is neither a tensor nor a value")
    said = tree.get("planner_data")
    paths = said if type(said) is dict else {}
    used = {place.file for place in _all_places(tensors, values)}
    files = {name: folder.file(name, said_by=METADATA) for name in sorted(used)}
    _check_room(_all_places(tensors, values), files)
    return Layout(
        tensors=tensors,
        values=values,
        paths={name: _path(paths.get(name), name) for name in entries},
        nested=type(said) is dict,
        files=files,
    )


def _all_places(tensors: Mapping[str, StoredTensor], values: Mapping[str, Place]) -> Iterator[Place]:
    for tensor in tensors.values():
        yield from (piece.place for piece in tensor.pieces)
    yield from values.values()


def _path(said: Any, name: str) -> Path:
    """The keys that lead to an entry; its flat name where they are not said, or do not make up that name."""
    honest = type(said) is tuple and bool(said) and all(type(part) in (str, int) for part in said)
    return said if honest and ".".join(map(str, said)) == name else (name,)


def _is(value: Any, kind: tuple[str, str]) -> bool:
    return type(value) is Object and (value.kind.module, value.kind.name) == kind


def _attributes(value: Any, *kinds: tuple[str, str]) -> dict[str, Any]:
    """The attributes of a saved dataclass of one of `kinds`."""
    if not any(_is(value, kind) for kind in kinds):
        raise _Bad(f"a {kinds[0][1]} is missing")
    state = {} if value.state is NO_STATE else value.state
    if type(state) is not dict or not all(type(key) is str for key in state):
        raise _Bad(f"a {kinds[0][1]} has no attributes")
    return state


def _size(value: Any) -> tuple[int, ...]:
    """The numbers of a saved torch.Size."""
    numbers: Any = value.arguments[0] if _is(value, ("torch", "Size")) and len(value.arguments) == 1 else None
    if type(numbers) not in (tuple, list) or len(numbers) > MAX_DIMENSIONS:
        raise _Bad("a size is not a list of counts")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise _Bad("a size is not a list of counts")
    return tuple(numbers)


Key = tuple[str, tuple[int, ...] | None]


def _places(stored: Any) -> dict[Key, Place]:
    """Where each piece and each value lies, by name and offsets."""
    if type(stored) is not dict:
        raise _Bad("it does not say where the data lies")
    found: dict[Key, Place] = {}
    for index, info in stored.items():
        key = _attributes(index, (CHECKPOINT, "MetadataIndex"))
        offset = None if key.get("offset") is None else _size(key["offset"])
        name = key.get("fqn")
        if type(name) is not str:
            raise _Bad("a piece has no name")
        found[name, offset] = _place(name, _attributes(info, (STORAGE_INFO.module, STORAGE_INFO.name)))
    return found


def _place(name: str, info: Mapping[str, Any]) -> Place:
    transforms = info.get("transform_descriptors")
    if transforms:
        raise CannotDecide(
            f"{quoted(name)} was saved through a storage extension ({quoted(transforms)}): only plain streams are read",
            "save again without `_extensions` in the FileSystemWriter",
        )
    file, begin, length = info.get("relative_path"), info.get("offset"), info.get("length")
    if type(file) is not str or not is_bare(file):
        raise _Bad(f"{quoted(name)} is said to lie in {quoted(file)}, which is no bare file name")
    if not (type(begin) is int and type(length) is int and 0 <= begin < 2**63 and 0 < length < 2**63):
        raise _Bad(f"{quoted(name)} has no place in its file")
    return Place(file=file, begin=begin, length=length)


def _place_of(places: Mapping[Key, Place], name: str, offsets: tuple[int, ...] | None) -> Place:
    place = places.get((name, offsets))
    if place is None:
        raise _Bad(f"it does not say where {quoted(name)} lies")
    return place


def _tensor(name: str, entry: Any, places: Mapping[Key, Place]) -> StoredTensor:
    """The tensor with its pieces, which cover it exactly."""
    found = _attributes(entry, (CHECKPOINT, "TensorStorageMetadata"))
    shape, dtype = _size(found.get("size")), _dtype(name, found.get("properties"))
    chunks = found.get("chunks")
    if type(chunks) is not list:
        raise _Bad(f"{quoted(name)} has no pieces")
    boxes = {_box(chunk) for chunk in chunks}  # a replicated piece may be listed once per rank
    if any(len(offsets) != len(shape) or len(sizes) != len(shape) for offsets, sizes in boxes):
        raise _Bad(f"a piece of {quoted(name)} has another number of dimensions")
    boxes = {box for box in boxes if math.prod(box[1]) or not math.prod(shape)}
    _check_cover(name, shape, sorted(boxes))
    pieces = tuple(Piece(offsets=o, sizes=s, place=_place_of(places, name, o)) for o, s in sorted(boxes))
    for piece in pieces:
        needed = math.prod(piece.sizes) * DTYPE_BYTES[dtype]
        if needed > piece.place.length:
            raise _Bad(f"a piece of {quoted(name)} needs {needed} bytes and has {piece.place.length}")
    return StoredTensor(dtype=dtype, shape=shape, pieces=pieces)


def _box(chunk: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    found = _attributes(chunk, (CHECKPOINT, "ChunkStorageMetadata"))
    return _size(found.get("offsets")), _size(found.get("sizes"))


def _dtype(name: str, properties: Any) -> str:
    """The dtype of a dense tensor, from the tuple that TensorProperties are saved as: (dtype, layout, …)."""
    known = _is(properties, (CHECKPOINT, "TensorProperties")) or _is(properties, (OLDER, "TensorProperties"))
    state = properties.state if known else None
    if type(state) is not tuple or len(state) < 2 or type(state[0]) is not Name or state[0].name not in DTYPE_BYTES:
        raise _Bad(f"the dtype of {quoted(name)} is unknown")
    if not _is(state[1], ("torch.serialization", "_get_layout")) or state[1].arguments != ("torch.strided",):
        raise CannotDecide(f"{quoted(name)} is not a dense tensor", "save the dense weights")
    return state[0].name


def _check_cover(name: str, shape: tuple[int, ...], boxes: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    """Nothing, or _Bad unless the boxes lie inside the shape, do not overlap, and fill it: `boxes` is sorted."""
    for offsets, sizes in boxes:
        if any(offset + size > whole for offset, size, whole in zip(offsets, sizes, shape, strict=True)):
            raise _Bad(f"a piece of {quoted(name)} lies outside its shape {quoted(shape)}")
    volume = sum(math.prod(sizes) for _, sizes in boxes)
    if volume != math.prod(shape):
        raise _Bad(f"the pieces of {quoted(name)} have {volume} of its {math.prod(shape)} elements")
    checks, active = 0, list[tuple[tuple[int, ...], tuple[int, ...]]]()
    for box in boxes if shape else ():
        active = [other for other in active if other[0][0] + other[1][0] > box[0][0]]
        checks += len(active)
        if checks > MAX_OVERLAP_CHECKS:
            raise _Bad(f"{quoted(name)} is in too many pieces")
        if any(_overlap(box, other) for other in active):
            raise _Bad(f"two pieces of {quoted(name)} overlap")
        active.append(box)


def _overlap(a: tuple[tuple[int, ...], tuple[int, ...]], b: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
    return all(x < y + m and y < x + n for x, n, y, m in zip(*a, *b, strict=True))


def _check_room(places: Iterator[Place], files: Mapping[str, Content]) -> None:
    """Nothing, or _Bad where a stream lies outside its file or two share bytes of it."""
    ends: dict[str, int] = {}
    for place in sorted(set(places), key=lambda place: (place.file, place.begin)):
        if place.begin < ends.get(place.file, 0):
            raise _Bad(f"two pieces share bytes of {shown(place.file)}")
        end = place.begin + place.length
        if end > files[place.file].size:
            raise _Bad(f"{shown(place.file)} is truncated: it has {files[place.file].size} bytes, and {end} are needed")
        ends[place.file] = end
