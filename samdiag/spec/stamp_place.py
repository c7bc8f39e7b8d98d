"""Where a stamp is written: the metadata of a safetensors file, replaced in one step, or a sidecar beside anything."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats.content import look_at
from samdiag.formats.folder import is_folder
from samdiag.formats.safetensors_file import STAMP_KEY, find_stamp, recognises
from samdiag.formats.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES, Header, read_header
from samdiag.quoting import shown
from samdiag.spec.discover import sidecar_of
from samdiag.spec.toml_text import assignment
from samdiag.whole_file import replacing

ALIGNMENT = 8  # bytes; the safetensors format asks that the tensors begin at a multiple of 8
ORDER = ("model", "data", "loss", "sam")
IN_FOLDER = "model.safetensors"  # a Hugging Face directory's weights, where they are one file
SIDECAR_TODO = "write it beside the checkpoint (samdiag stamp --sidecar), or the same keys into your samdiag.toml"


def find_place(path: str | Path) -> Path:
    """The safetensors file that takes the stamp of the checkpoint at `path`; links are followed.

    Raises:
        UsageError: there is nothing, or a checkpoint without room for a stamp: a torch file, shards, …
        CannotDecide: the file is damaged.
    """
    place = Path(path)
    if is_folder(place) and (place / IN_FOLDER).is_file():
        place = place / IN_FOLDER
    if is_folder(place):
        raise UsageError(f"{shown(place)} is a folder without a {IN_FOLDER}: no room for a stamp", SIDECAR_TODO)
    content = look_at(place)
    if not recognises(content):
        what = f"{content.name} is not a .safetensors file: only those have room for a stamp"
        raise UsageError(what, SIDECAR_TODO)
    return place.resolve()


def read_stamp(path: str | Path) -> Mapping[str, Any] | None:
    """The stamp of the checkpoint at `path` as plain data, untrusted; None where it has none that can be read.

    Raises:
        UsageError, CannotDecide: as `find_place`.
    """
    return find_stamp(read_header(find_place(path)))[0]


def as_toml(stamp: Mapping[str, Any]) -> str:
    """A stamp as the lines of a samdiag.toml, in the order in which one writes them."""
    names = sorted(stamp, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return "\n".join(assignment(name, stamp[name]) for name in names if stamp[name] is not None)


def write_text(path: str | Path, text: str) -> None:
    """The checkpoint's stamp becomes `text`, JSON; tensors and other metadata keep their bytes.

    Raises:
        UsageError, CannotDecide: as `find_place`, or the file cannot be written.
    """
    place = find_place(path)
    header = read_header(place)
    _rewrite(place, header, {**header.metadata, STAMP_KEY: text})


def remove_stamp(path: str | Path) -> bool:
    """Whether there was a stamp; it is gone then, and nothing else has changed.

    Raises:
        UsageError, CannotDecide: as `write_text`.
    """
    place = find_place(path)
    header = read_header(place)
    if STAMP_KEY not in header.metadata:
        return False
    _rewrite(place, header, {key: value for key, value in header.metadata.items() if key != STAMP_KEY})
    return True


def write_sidecar(path: str | Path, text: str, *, force: bool = False) -> Path:
    """The file that was written beside the checkpoint at `path`: the stamp `text`, JSON, as TOML.

    Raises:
        UsageError: there is no such checkpoint, or there is a sidecar already and `force` does not say to replace it.
        CannotDecide: it cannot be written.
    """
    checkpoint = Path(path)
    if not is_folder(checkpoint):
        look_at(checkpoint)
    sidecar = sidecar_of(checkpoint)
    if sidecar is None:
        raise UsageError(f"{shown(checkpoint)} has no place beside it", "name the folder of one checkpoint")
    if sidecar.exists() and not force:
        raise UsageError(f"{shown(sidecar)} exists already", "add --force to replace it")
    with _told(sidecar), replacing(sidecar, mode=0o644) as beside:
        Path(beside).write_text(as_toml(json.loads(text)) + "\n", encoding="utf-8")
    return sidecar


def _rewrite(path: Path, header: Header, metadata: Mapping[str, str]) -> None:
    """The file with another header before the same data, put in place in one step."""
    document = {key: value for key, value in header.raw.items() if key != "__metadata__"}
    document = {"__metadata__": metadata, **document} if metadata else document
    encoded = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % ALIGNMENT)
    if len(encoded) > MAX_HEADER_BYTES:
        raise CannotDecide(f"{shown(path)} has no room for a stamp: its header is full", "use a samdiag.toml instead")
    with _told(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        with replacing(path, mode=mode) as beside, open(beside, "wb") as new, path.open("rb") as old:
            new.write(len(encoded).to_bytes(LENGTH_BYTES, "little") + encoded)
            old.seek(header.data_start)
            shutil.copyfileobj(old, new, length=1 << 20)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """A context in which an OSError about a file that is written becomes CannotDecide."""
    try:
        yield
    except OSError as error:
        what = f"{shown(path)} cannot be stamped: {error.strerror}"
        raise CannotDecide(what, "check space and permissions") from None
