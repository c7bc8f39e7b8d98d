"""Directories of torch.distributed.checkpoint."""

from __future__ import annotations

from samdiag.errors import CannotDecide
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.folder import Folder, FolderFormat

METADATA = ".metadata"


def recognises(folder: Folder) -> bool:
    """Whether it has the file in which torch.distributed.checkpoint says what lies where."""
    return METADATA in folder


def open_folder(folder: Folder) -> Checkpoint:
    """The Checkpoint."""
    raise CannotDecide(
        f"{folder.name} is a torch.distributed.checkpoint folder",
        f"convert it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder.name} weights.pt",
    )


FORMAT = FolderFormat(recognises=recognises, open=open_folder)
