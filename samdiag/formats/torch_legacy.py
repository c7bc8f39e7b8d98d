"""Files of torch before 1.6 (and of `_use_new_zipfile_serialization=False`): pickles, then the storages' bytes.

torch's own reader of this layout allocates what the file claims, reads source code that the file names, and tries a tar
archive first. Here the file is memory-mapped, every claim is checked against its size, and only storages are looked up.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.content import Content
from samdiag.formats.inert import safe_globals
from samdiag.formats.pickle_bounds import check_pickle
from samdiag.formats.recognition import Format
from samdiag.formats.torch_saved import load_safely, open_saved

if TYPE_CHECKING:
    import torch

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number
PROTOCOL = 1001  # the only version there is
COUNT_BYTES = 8  # before each storage's bytes: its number of elements


def recognises(content: Content) -> bool:
    """Whether it begins with the magic number of the old layout."""
    return content.prefix.startswith(MAGIC)


def open_content(content: Content) -> Checkpoint:
    """The Checkpoint: memory-mapped, with the hints of its optimizer state."""
    return open_saved(content, load(content), "torch-legacy")


def load(content: Content) -> Any:
    """What the file holds: tensors, mapped from the file, and plain values.

    Raises:
        CannotDecide: it is damaged, or asks for something to be run.
    """
    return load_safely(content, _read)


def _read(path: Path) -> Any:
    import torch

    with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(safe_globals()):  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # about deprecated storages: nothing that a reader could act on
        _check_head(file)
        start = file.tell()
        claimed: dict[str, int] = {}
        _unpickle(file, lambda key, size: _claim(claimed, key, size))  # once without data: the storages' sizes
        places = _places(file, claimed)
        whole = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
        file.seek(start)
        saved = _unpickle(file, lambda key, _: whole[places[key] : places[key] + claimed[key]])
        torch._utils._validate_loaded_sparse_tensors()  # type: ignore[no-untyped-call]
    return saved


def _check_head(file: BinaryIO) -> None:
    file.seek(len(MAGIC))
    if _plain(file) != PROTOCOL:
        raise ValueError("its version of the old torch layout is unknown")
    system = _plain(file)
    little = system.get("little_endian") if isinstance(system, dict) else None
    if little is not (sys.byteorder == "little"):
        raise ValueError("it was written by a machine of another byte order")


def _plain(file: BinaryIO) -> Any:
    """The next pickle, of plain values alone."""
    return _unpickle(file, None)


def _unpickle(file: BinaryIO, storage: Callable[[str, int], torch.UntypedStorage] | None) -> Any:
    """The next pickle by torch's weights-only reader; its storages come from `storage(key, num_bytes)`."""
    from torch._weights_only_unpickler import Unpickler

    start = file.tell()
    check_pickle(file)
    file.seek(start)
    reader = Unpickler(file, encoding="utf-8")
    if storage is not None:
        reader.persistent_load = lambda saved: _storage(saved, storage)  # type: ignore[method-assign]
    return reader.load()  # type: ignore[no-untyped-call]


def _storage(saved: Any, storage: Callable[[str, int], torch.UntypedStorage]) -> torch.TypedStorage:
    """The storage, or the view of one, that a persistent id of the pickle names."""
    import torch

    if not isinstance(saved, tuple) or len(saved) != 6:
        raise ValueError("its pickle names something that is no storage")
    kind, key, _, count, view = saved[1:]
    dtype = kind.dtype
    width = torch._utils._element_size(dtype)  # type: ignore[no-untyped-call]
    found = storage(str(key), _count(count) * width)
    if view is not None:
        _, first, length = view
        begin, end = _count(first) * width, (_count(first) + _count(length)) * width
        if end > found.nbytes():
            raise ValueError("a view of a storage ends after it")
        found = found[begin:end] if found.device.type != "meta" else _hollow(end - begin)
    return torch.TypedStorage(wrap_storage=found, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def _hollow(size: int) -> torch.UntypedStorage:
    """A storage without memory."""
    import torch

    return torch.UntypedStorage(size, device="meta")  # type: ignore[no-untyped-call]


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:  # beyond any file
        raise ValueError("a storage has no possible size")
    return value


def _claim(claimed: dict[str, int], key: str, size: int) -> torch.UntypedStorage:
    """A storage without memory, its size noted."""
    if claimed.setdefault(key, size) != size:
        raise ValueError("a storage has two sizes")
    return _hollow(size)


def _places(file: BinaryIO, claimed: dict[str, int]) -> dict[str, int]:
    """Where in the file each storage's bytes begin; ValueError where they do not all lie inside it."""
    keys = _plain(file)
    if not isinstance(keys, list) or {str(key) for key in keys} != set(claimed):
        raise ValueError("its list of storages does not agree with its pickle")
    position = file.tell()
    end = file.seek(0, 2)
    places: dict[str, int] = {}
    for key in map(str, keys):
        file.seek(position)
        count = int.from_bytes(file.read(COUNT_BYTES), "little")
        position += COUNT_BYTES
        size = claimed[key]
        if (size % count if count else size) or position + size > end:
            raise ValueError("it is truncated: a storage ends after the file")
        places[key] = position
        position += size
    return places


FORMAT = Format(recognises=recognises, open=open_content)
