"""A file's size, first bytes and fingerprint: what recognition looks at."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from samdiag.errors import CannotDecide, UsageError
from samdiag.quoting import listed, shown

PREFIX_BYTES = 4096  # more than any magic number needs
_hashing: contextvars.ContextVar[bool] = contextvars.ContextVar("hashing", default=True)
# From this size on a file is mapped, where a copy would cost memory. One that another process cuts short while it is
# mapped ends this process (SIGBUS): smaller ones are read, and then looked at again.
MAPPED_BYTES = 256 * 1024**2
REMEMBERED = 64  # fingerprints: the shards of a checkpoint that is read ahead, identified, and then measured
_hashed: dict[tuple[str, tuple[int, int, int, int]], str] = {}
CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A regular, non-empty file: its path, size, first bytes, and the identity it had when it was looked at."""

    path: Path
    size: int
    prefix: bytes
    identity: tuple[int, int, int, int]  # device, inode, size, modification time in ns

    @property
    def name(self) -> str:
        """The path, fit for one line of a message."""
        return shown(self.path)

    def fingerprint(self) -> str:
        """ "sha256:<hex>" of the whole file, read in chunks; "" where nothing is to be hashed (`unhashed`).

        A file that has been hashed a moment ago, and is the same by `identity`, is not read again.
        """
        if not _hashing.get():
            return ""
        key = (os.path.abspath(self.path), self.identity)
        if key not in _hashed:
            with reading(self.path), self.path.open("rb") as file:
                _hashed[key] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        found = _hashed[key]
        while len(_hashed) > REMEMBERED:
            _hashed.pop(next(iter(_hashed)), None)
        return found

    def check_unchanged(self) -> None:
        """Nothing, or CannotDecide when the file is no longer the one that was fingerprinted."""
        with reading(self.path):
            same = identity(os.stat(self.path)) == self.identity
        if not same:
            raise CannotDecide(f"{self.name} changed while it was being read", "run again once nothing writes to it")


@contextlib.contextmanager
def unhashed() -> Iterator[None]:
    """A context in which fingerprints are empty: what a header says does not need a large file to be read whole."""
    before = _hashing.set(False)
    try:
        yield
    finally:
        _hashing.reset(before)


def identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """What distinguishes one state of a file from another without reading it."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """A context in which an OSError about `path` becomes CannotDecide."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CannotDecide(f"{shown(path)} cannot be read: {reason}", "check its permissions and its disk") from None


def look_at(path: Path) -> Content:
    """The content of a regular file, or the error that says what is there instead."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{shown(path)} does not exist", _todo_missing(path)) from None
    except ValueError:  # a null byte in the name
        raise UsageError(f"{shown(path)} is not a file name", "give the path of a checkpoint file") from None
    except OSError as error:
        raise CannotDecide(
            f"{shown(path)} cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{shown(path)} is a folder", "give the path of a checkpoint file")
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{shown(path)} is not a regular file", "give the path of a checkpoint file")
    prefix = b""
    if status.st_size > 0:
        with reading(path), path.open("rb") as file:
            prefix = file.read(PREFIX_BYTES)
    if not prefix:  # also where it was emptied between the two looks
        raise CannotDecide(f"{shown(path)} is empty", "the save or the download was interrupted: write the file again")
    return Content(path=path, size=status.st_size, prefix=prefix, identity=identity(status))


def _todo_missing(path: Path) -> str:
    folder = path.parent
    found = checkpoints_in(folder) if folder.is_dir() else []
    if not folder.is_dir():
        return f"check the path: there is no folder {shown(folder)}"
    return (
        f"check the path; {'this folder' if str(folder) == '.' else shown(folder)} holds: {listed(found)}"
        if found
        else "check the path"
    )


def checkpoints_in(folder: Path) -> list[str]:
    """The names of what looks like checkpoint files in a folder."""
    try:
        return sorted(item.name for item in folder.iterdir() if item.suffix in CHECKPOINT_SUFFIXES and item.is_file())
    except OSError:
        return []
