"""Files of `torch.save` (zip layout), always read with `weights_only=True`: nothing in them is ever run."""

from __future__ import annotations

import contextlib
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from samdiag.errors import CannotDecide
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.content import MAPPED_BYTES, Content, reading
from samdiag.formats.inert import safe_globals
from samdiag.formats.pickle_bounds import Disproportionate, check_pickle
from samdiag.formats.recognition import Format
from samdiag.formats.refused import SAVE_WEIGHTS
from samdiag.formats.torch_saved import deepspeed, load_safely, open_saved

MAX_INFLATION = (
    2  # torch.save stores without compression, so that an honest archive is never larger inside than outside
)
MAX_ENTRIES = 2_000_000  # one per tensor, and a margin
ZERO_FILE = re.compile(r"zero_pp_rank_\d+_.*|mp_rank_\d+_model_states\.pt|.*_optim_states\.pt")


def recognises(content: Content) -> bool:
    """Whether it is a zip archive; which kind is decided when it is opened."""
    return content.prefix.startswith(b"PK\x03\x04")


def open_content(content: Content) -> Checkpoint:
    """The Checkpoint: memory-mapped where it is large, with the hints of its optimizer state."""
    return open_saved(content, load(content), "torch-zip")


def load(content: Content) -> Any:
    """What the file holds: tensors, mapped from a large file, and plain values.

    Raises:
        CannotDecide: it is damaged, no file of `torch.save`, or asks for something to be run.
    """
    _check_archive(content)
    found = load_safely(content, _torch_load)
    content.check_unchanged()
    return found


def _check_archive(content: Content) -> None:
    """Nothing, or CannotDecide where the zip archive is damaged or not one of `torch.save`."""
    name = content.name
    if ZERO_FILE.fullmatch(content.path.name):
        raise deepspeed(content)
    with _damage_told(name), reading(content.path), zipfile.ZipFile(content.path) as archive:
        entries = archive.infolist()
    inside = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or inside > MAX_INFLATION * content.size:
        reason = f"its {len(entries)} entries unpack to {inside} bytes from {content.size}"
        raise CannotDecide(f"{name} is not a file of torch.save: {reason}", f"save the weights again: {SAVE_WEIGHTS}")
    names = {"/".join(entry.filename.split("/")[1:]) or entry.filename for entry in entries}
    if "constants.pkl" in names or any(entry.startswith("code/") for entry in names):
        todo = (
            f"archives of code are never run here; where you trust it: `model = torch.jit.load(path)`, {SAVE_WEIGHTS}"
        )
        raise CannotDecide(f"{name} is a TorchScript archive", todo)
    if "data.pkl" not in names:
        raise CannotDecide(f"{name} is {_zip_kind(names)}", f"save the weights with {SAVE_WEIGHTS}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or len(names) != len(entries):
        reason = "its entries are compressed, or several have one name"  # read in place, they would give any number
        raise CannotDecide(f"{name} is not a file of torch.save: {reason}", f"save the weights again: {SAVE_WEIGHTS}")
    _check_pickles(content, [entry for entry in entries if entry.filename.endswith("data.pkl")])


@contextlib.contextmanager
def _damage_told(name: str) -> Iterator[None]:
    """A context in which what `zipfile` raises about an archive becomes CannotDecide."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError):
        raise CannotDecide(f"{name} is a truncated or damaged zip archive", "copy or save the file again") from None


def _check_pickles(content: Content, entries: list[zipfile.ZipInfo]) -> None:
    """Nothing, or CannotDecide where a pickle would take time or memory out of proportion to its size."""
    with _damage_told(content.name), reading(content.path), zipfile.ZipFile(content.path) as archive:
        for entry in entries:
            try:
                check_pickle(archive.read(entry))
            except Disproportionate as error:
                todo = f"save the weights alone: {SAVE_WEIGHTS}"
                raise CannotDecide(f"{content.name} is not read: {error}", todo) from None


def _zip_kind(names: set[str]) -> str:
    if any(name.endswith(".npy") for name in names):
        return "a NumPy .npz archive, not a torch checkpoint"
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        return "a torch.export archive (.pt2), not a checkpoint"
    return "a zip archive but not one of torch.save: it has no data.pkl"


def _torch_load(path: Path) -> Any:
    """What torch reads with weights_only=True: mapped where it is large and the file system can."""
    import torch

    with warnings.catch_warnings(), torch.serialization.safe_globals(safe_globals()):  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # about deprecated storages and the like: nothing that a reader could act on
        mapped = path.stat().st_size >= MAPPED_BYTES
        try:
            return torch.load(path, weights_only=True, mmap=mapped, map_location="cpu")
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, weights_only=True, map_location="cpu")


FORMAT = Format(recognises=recognises, open=open_content)
