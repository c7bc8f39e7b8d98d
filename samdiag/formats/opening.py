"""From a path to a Checkpoint: a file, with what lies beside it, or a folder that is one checkpoint."""

from __future__ import annotations

from pathlib import Path

from samdiag import registry
from samdiag.formats import adapter, huggingface
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.content import look_at
from samdiag.formats.folder import Folder, FolderFormat, is_folder, list_folder
from samdiag.formats.recognition import damage_told, open_file
from samdiag.formats.refused import check_whole
from samdiag.formats.refused_folders import folder_refusal


def open_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, opened without running anything it contains.

    A safetensors file is read up to its header; a torch file is memory-mapped with `weights_only=True`, which nothing
    turns off. `path` may be a folder where that is the checkpoint: Hugging Face's, torch.distributed.checkpoint's, …

    Raises:
        UsageError: there is nothing at `path`, or a folder of something else (exit 2).
        CannotDecide: it is damaged, of a format that samdiag does not read, or a pickle of code (exit 3).
    """
    path = Path(path)
    if is_folder(path):
        return _open_folder(list_folder(path))
    content = look_at(path)
    check_whole(content)
    checkpoint = open_file(content)
    with damage_told(content.name):
        return adapter.open_beside(huggingface.open_beside(checkpoint))


def _open_folder(folder: Folder) -> Checkpoint:
    for entry in registry.FOLDERS.values():
        known: FolderFormat = registry.load(entry)
        if known.recognises(folder):
            with damage_told(folder.name):
                return known.open(folder)
    raise folder_refusal(folder)
