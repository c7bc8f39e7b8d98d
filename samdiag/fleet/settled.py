"""Is a checkpoint complete? Asked of one whose files have stopped changing; torch is not needed for the answer."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from samdiag.errors import SamdiagError
from samdiag.fleet.sightings import INNER, Kind, Sighting, glance
from samdiag.formats import huggingface, sharded, tree
from samdiag.formats.adapter import WEIGHTS as ADAPTER_WEIGHTS
from samdiag.formats.content import CHECKPOINT_SUFFIXES
from samdiag.formats.distributed_metadata import METADATA, read_layout
from samdiag.formats.folder import Folder, list_folder, surroundings
from samdiag.formats.refused import DEEPSPEED_FILE
from samdiag.formats.safetensors_header import LENGTH_BYTES, read_header
from samdiag.quoting import listed, shown

ZIP = b"PK\x03\x04"
FIRST_BYTES = LENGTH_BYTES + 1  # a zip's signature; or the length of a safetensors header, and its first character
CHANGING = "it is being written"


def missing(sighting: Sighting) -> str | None:
    """What a checkpoint still lacks, as the end of "X is incomplete: …"; None where it is whole.

    A safetensors file has as many bytes as its header says, a zip of torch.save has its central directory, every file
    that an index names is there and whole, and so is every file that a `.metadata` names, which is written last. A file
    of torch before 1.6 says nothing of the kind: there the size that stopped changing has to do.

    Files are opened, and looked at once more afterwards: on a network file system that is what brings sizes up to date.
    """
    try:
        reason = _missing(sighting)
    except SamdiagError as error:
        own = f"{shown(sighting.path)} "
        reason = f"it {error.what.removeprefix(own)}" if error.what.startswith(own) else error.what
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or type(error).__name__})"
    if reason is None and glance(sighting) != sighting.stamp:
        return CHANGING
    return reason


def is_checkpoint(sighting: Sighting) -> bool:
    """Whether a complete file, by its first bytes, or folder is of a format that samdiag knows."""
    return sighting.kind is not Kind.FILE or tree.is_checkpoint_file(sighting.path)


def _missing(sighting: Sighting) -> str | None:
    path = Path(sighting.path)
    match sighting.kind:
        case Kind.FILE:
            return lacking(path)
        case Kind.INDEX:
            return _lacking_shards(path)
        case Kind.FOLDER:
            return _lacking_in_folder(list_folder(path))


def lacking(path: Path) -> str | None:
    """What one file lacks; None where it is whole, or of a kind that does not say.

    Raises:
        CannotDecide: the header of a safetensors file does not agree with its size.
        OSError: it cannot be read.
    """
    name = shown(path.name)
    with path.open("rb") as file:
        start = file.read(FIRST_BYTES)
    if len(start) < FIRST_BYTES:
        return f"{name} has {len(start)} bytes" if start else f"{name} is empty"
    if not start.strip(b"\0"):
        return f"{name} begins with zeros: room was made for it, and nothing written yet"
    if start[LENGTH_BYTES:] == b"{" and path.suffix == ".safetensors":
        read_header(path)
    elif start.startswith(ZIP):
        try:
            zipfile.ZipFile(path).close()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
            return f"{name} has no end yet: the directory of its zip archive is missing"
    return None


def _lacking_shards(index: Path) -> str | None:
    """What the files named by an index lack.

    Raises:
        CannotDecide: the index is no index, or no whole one.
    """
    from samdiag.formats.content import look_at

    files = sorted(set(sharded.read_index(look_at(index)).values()))
    absent = set(files) - surroundings(index, files).names
    if absent:
        return f"{shown(index.name)} names files that are not there yet: {listed(sorted(absent))}"
    return _first(index.parent, files)


def _first(folder: Path, names: list[str]) -> str | None:
    """What the first incomplete one of these files lacks."""
    return next((reason for name in names if (reason := lacking(folder / name))), None)


def _lacking_in_folder(folder: Folder) -> str | None:
    """What a checkpoint's folder lacks."""
    if METADATA in folder:
        read_layout(folder, folder.file(METADATA))
        return None
    if folder.ending(".distcp"):
        return f"{METADATA}, which is written last, is not there yet"
    if any(DEEPSPEED_FILE.fullmatch(name) for name in folder.names):
        return None  # it is refused by name, whatever it holds
    inner = [name for name in sorted(folder.names) if INNER.fullmatch(name) and (folder.path / name).is_dir()]
    for name in inner:
        reason = _lacking_in_folder(folder.folder(name)) or _no_metadata(folder.path / name)
        if reason is not None:
            return f"{name}: {reason}"
    indexes = folder.ending(*sharded.SUFFIXES)
    if not indexes and any(huggingface.SHARD.fullmatch(name) for name in folder.names):
        return "the index of its shards is not there yet"
    if not (inner or huggingface.recognises(folder) or any(name in folder for name in ADAPTER_WEIGHTS)):
        return "its weights are not there yet"
    for index in indexes:
        if reason := _lacking_shards(folder.path / index):
            return reason
    return _first(folder.path, folder.ending(*CHECKPOINT_SUFFIXES))


def _no_metadata(folder: Path) -> str | None:
    return None if os.path.lexists(folder / METADATA) else f"{METADATA}, which is written last, is not there yet"
