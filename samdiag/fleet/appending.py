"""Records at the end of a file, one by one: on the disk when `append` returns, and never half of one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from samdiag.errors import CannotDecide, UsageError
from samdiag.fleet import locking
from samdiag.quoting import shown

ROOM_TODO = "make room, or see to it that the file can be written; then start again with --resume FILE"
OPEN_TODO = "give a file in a folder that exists and is writable"
MODE = 0o666  # less the umask, as for any new file


class RecordFile:
    """An open, locked results file. Use as a context.

    Attributes:
        path: as given.
        regular: whether it is a file on a disk; what is none (a pipe, a device) is neither locked nor taken back from.
        note: what the user should know about its lock; None: it is locked, or need not be.
    """

    def __init__(self, path: Path, *, any_kind: bool = False) -> None:
        """Opens `path`, creating it where it is not there, and locks it; nothing in it is changed.

        Args:
            path: of the file.
            any_kind: whether it may also be a pipe or a device.

        Raises:
            UsageError: it cannot be written, is no regular file, or another process is writing to it.
        """
        self.path = path
        self._place = Path(os.path.abspath(path))  # the user's own code may change the working directory
        self.descriptor = -1
        self.regular = True
        self.note: str | None = None
        self._torn_at: int | None = None
        while self.descriptor < 0:
            self._open(any_kind)
        locking.keep_from_children(self)

    def _open(self, any_kind: bool) -> None:
        new = not os.path.exists(self.path)  # which answers for a name that cannot be, too
        self.regular = new or os.path.isfile(self.path) or os.path.isdir(self.path)
        if not self.regular and not any_kind:
            raise UsageError(f"{shown(self.path)} is not a regular file", "give the name of a file")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT if self.regular else os.O_WRONLY
        try:
            descriptor = os.open(self.path, flags | getattr(os, "O_BINARY", 0), MODE)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            why = getattr(error, "strerror", None) or error
            raise UsageError(f"{shown(self.path)} cannot be written: {why}", OPEN_TODO) from None
        try:
            self.note = locking.take(descriptor, self.path) if self.regular else None
            if new:
                sync_folder(self.path)
        except BaseException:
            os.close(descriptor)
            raise
        if not self.regular or is_at(descriptor, self.path):
            self.descriptor = descriptor
        else:  # replaced by its last holder between opening and locking
            os.close(descriptor)

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def forget(self) -> None:
        """Closes the file, which gives back the lock."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def move_to(self, descriptor: int) -> None:
        """Goes on with another open file, locked already, that has taken the place of this one."""
        before, self.descriptor = self.descriptor, descriptor
        os.close(before)

    def append(self, line: bytes) -> None:
        """One record with its end: written in one go and on the disk before this returns.

        Where that fails, or is interrupted before the line is complete, the file ends with the record before it.

        Raises:
            CannotDecide: the disk is full, or the file can no longer be written, or is no longer at its place.
        """
        before = None
        if not self.regular:
            self._pass_on(line)
            return
        try:
            self._end_whole()
            before = os.fstat(self.descriptor).st_size
            write_all(self.descriptor, line)
            os.fsync(self.descriptor)
        except OSError as error:
            self._torn_at = before if before is not None else self._torn_at
            with suppress(OSError):  # else the next reader drops the torn line
                self._end_whole()
            what = f"the record could not be written to {shown(self.path)}: {error.strerror or error}"
            raise CannotDecide(what, ROOM_TODO) from error
        except BaseException:  # Ctrl-C
            if before is not None and os.fstat(self.descriptor).st_size < before + len(line):
                self._torn_at = before
                self._end_whole()
            raise
        if not is_at(self.descriptor, self._place):
            what = f"{shown(self.path)} was moved or removed while the run was writing to it"
            raise CannotDecide(what, "put it back where it still exists, and start again with --resume FILE")

    def _pass_on(self, line: bytes) -> None:
        """One record to a pipe or a device; a reader that went away is an OSError, as on stdout."""
        try:
            write_all(self.descriptor, line)
        except BrokenPipeError:
            raise
        except OSError as error:
            what = f"the record could not be written to {shown(self.path)}: {error.strerror or error}"
            raise CannotDecide(what, ROOM_TODO) from error

    def cut(self, size: int) -> None:
        """Takes away what is behind the first `size` bytes."""
        os.ftruncate(self.descriptor, size)
        os.fsync(self.descriptor)

    def _end_whole(self) -> None:
        """Takes away a record that could not be written completely, if there is one."""
        if self._torn_at is not None:
            self.cut(self._torn_at)
            self._torn_at = None


def write_all(descriptor: int, data: bytes) -> None:
    """All of `data`, in as few writes as the system takes."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one that `path` names."""
    try:
        there = os.stat(path)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def sync_folder(path: Path) -> None:
    """Puts the name of a new file on the disk, where the system can do that for a folder."""
    with suppress(OSError):
        folder = os.open(path.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
