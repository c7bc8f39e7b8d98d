"""The data files of a torch.distributed.checkpoint folder: streams of torch.save, one after another."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide
from samdiag.formats.content import Content, reading
from samdiag.formats.distributed_metadata import SAVE_AGAIN, Layout, Piece, Place, StoredTensor
from samdiag.formats.inert import safe_globals
from samdiag.formats.pickle_bounds import Disproportionate, check_pickle
from samdiag.formats.torch_zip import MAX_INFLATION
from samdiag.quoting import quoted

if TYPE_CHECKING:
    from torch import Tensor

MAX_VALUE_BYTES = 16_000_000  # of a value that is no tensor: the names of 100 000 parameters take some ten million
MAX_STREAM_ENTRIES = 64  # a stream of one tensor has some six


def read_tensors(layout: Layout, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of the given flat names, put together from their pieces."""
    for content in layout.files.values():
        content.check_unchanged()
    return {name: _assemble(layout, name, layout.tensors[name]) for name in names}


def read_value(layout: Layout, name: str) -> Any:
    """A value that is no tensor, plain; None where it is too large to be a setting."""
    place = layout.values[name]
    return _load(layout.files[place.file], place, name) if place.length <= MAX_VALUE_BYTES else None


def _assemble(layout: Layout, name: str, stored: StoredTensor) -> Tensor:
    import torch

    if len(stored.pieces) == 1:
        return _read_piece(layout, name, stored, stored.pieces[0])
    whole = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))  # a name of DTYPE_BYTES
    for piece in stored.pieces:
        box = tuple(slice(offset, offset + size) for offset, size in zip(piece.offsets, piece.sizes, strict=True))
        whole[box] = _read_piece(layout, name, stored, piece)
    return whole


def _read_piece(layout: Layout, name: str, stored: StoredTensor, piece: Piece) -> Tensor:
    import torch

    content = layout.files[piece.place.file]
    part = _load(content, piece.place, name)
    if not isinstance(part, torch.Tensor) or part.is_meta or part.is_quantized or part.layout != torch.strided:
        raise _damaged(content, f"{quoted(name)} is not a dense tensor")
    if tuple(part.shape) != piece.sizes or part.dtype != getattr(torch, stored.dtype):  # a name of DTYPE_BYTES
        raise _damaged(content, f"a piece of {quoted(name)} has another shape or dtype than its metadata say")
    return part.detach()


def _load(content: Content, place: Place, name: str) -> Any:
    """What one stream holds, read with weights_only=True."""
    import torch

    with reading(content.path), content.path.open("rb") as file:
        file.seek(place.begin)
        data = file.read(place.length)
    _check_stream(content, data, name)
    with warnings.catch_warnings(), torch.serialization.safe_globals(safe_globals()):  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # about deprecated storages: nothing that a reader could act on
        try:
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except MemoryError:
            raise
        except Exception as error:  # the unpickler raises whatever a malformed stream makes it raise
            refused = "Weights only load failed" in str(error)
            reason = "wants to run code" if refused else f"cannot be read ({type(error).__name__})"
            raise _damaged(content, f"the stream of {quoted(name)} {reason}") from None


def _check_stream(content: Content, data: bytes, name: str) -> None:
    """Nothing, or CannotDecide unless the stream is an archive of torch.save that is no larger inside than outside."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise _damaged(content, f"the stream of {quoted(name)} is not one of torch.save") from None
    inside = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_STREAM_ENTRIES or inside > MAX_INFLATION * len(data):
        raise _damaged(content, f"the stream of {quoted(name)} unpacks to {inside} bytes from {len(data)}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    check_pickle(archive.read(entry))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        reason = str(error) if isinstance(error, Disproportionate) else "its archive is damaged"
        raise _damaged(content, f"the stream of {quoted(name)}: {reason}") from None


def _damaged(content: Content, reason: str) -> CannotDecide:
    return CannotDecide(f"{content.name} is damaged: {reason}", SAVE_AGAIN)
