"""One writer per results file: an exclusive lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from samdiag.errors import UsageError
from samdiag.quoting import shown

try:
    import fcntl
except ImportError:  # no such locks here; `take` says so
    fcntl = None  # type: ignore[assignment]

HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # what different file systems answer for "somebody else has it"
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class Holder(Protocol):
    """What keeps a locked descriptor open."""

    def forget(self) -> None:
        """Closes the descriptor without touching the file."""


_HOLDERS: weakref.WeakSet[Holder] = weakref.WeakSet()


def take(descriptor: int, path: Path) -> str | None:
    """Locks an open file for this process alone; None, or a note where the file system has no locks.

    The lock belongs to the open file and not to a file beside it, so nothing is left behind, and the kernel takes it
    back from a process that was killed.

    Raises:
        UsageError: another process has it.
    """
    unlocked = f"{shown(path)} cannot be locked here: see to it that one run at a time writes to it"
    if fcntl is None:
        return unlocked
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            who = " and ".join(f"process {pid}" for pid in _holders(descriptor)) or "another process"
            what = f"{shown(path)} is in use: {who} is writing to it"
            todo = "wait for that run to end, or give this one a file of its own and join the two with `samdiag merge`"
            raise UsageError(what, todo) from None
        if error.errno in UNSUPPORTED:
            return unlocked
        raise
    return None


def keep_from_children(holder: Holder) -> None:
    """Sees to it that a process forked from this one lets go of the lock, or it would outlive a killed parent."""
    _HOLDERS.add(holder)


def _let_go() -> None:
    for holder in list(_HOLDERS):
        holder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _holders(descriptor: int) -> Iterator[int]:
    """The processes that hold a lock on the same file, as far as this machine's kernel tells (Linux)."""
    status = os.fstat(descriptor)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF": kind, process, file; one that waits has "->" in front
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[5] == place and int(words[4]) > 0:
                yield int(words[4])
