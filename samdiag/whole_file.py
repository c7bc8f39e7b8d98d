"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def usual_mode(path: Path) -> int:
    """Permissions for what takes the place of `path`: its own, or those of any new file; a temporary one is private."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[str]:
    """The name of an empty file beside `path`, to be filled; it then takes the place of `path` in one step.

    A reader sees the old file or the new one. Whatever is raised inside, nothing is left behind.

    Args:
        path: in a folder that exists.
        mode: permissions of the new file; None: its owner's alone.

    Raises:
        OSError: it cannot be written, e.g. because the disk is full.
    """
    descriptor, beside = tempfile.mkstemp(dir=path.absolute().parent, prefix=".samdiag-", suffix=".tmp")
    try:
        os.close(descriptor)
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(beside, mode)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
