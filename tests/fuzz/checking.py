"""The property that every reader has: it returns, or says in two printable lines what is wrong; nothing else."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from samdiag.errors import SamdiagError

MAX_LINE = 20_000  # characters of one line of a message; texts in it are shortened to 200 each


class Violation(AssertionError):
    """A reader let something else out than its own errors, or an error that cannot be printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader and what it is fed with.

    Attributes:
        name: as on the command line.
        run: reads the bytes; returns or raises SamdiagError.
        seeds: real inputs, made on the spot by the libraries that write them.
        words: what a mutated input may be put together from.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()


def check(target: Target, data: bytes) -> bool:
    """Whether the reader accepted the bytes; Violation where it did neither that nor refuse them properly."""
    try:
        target.run(data)
    except SamdiagError as error:
        check_error(error)
        return False
    except MemoryError:
        return False
    except Exception as error:
        raise Violation(f"{target.name}: {type(error).__name__}: {error}"[:500]) from error
    return True


def check_error(error: SamdiagError) -> None:
    """Violation unless both parts are there and can be printed as they are."""
    lines = [error.what, *error.todo.splitlines()]  # a todo may list lines to copy
    if not error.what.strip() or not error.todo.strip():
        raise Violation(f"an error says nothing: {error.what!r} {error.todo!r}")
    for line in lines:
        if not line.isprintable() or len(line) > MAX_LINE:
            raise Violation(f"not printable, or a flood: {line[:300]!r}")


_folder: tempfile.TemporaryDirectory[str] | None = None


def scratch() -> Path:
    """A folder of this process, in memory where the system has such a place."""
    global _folder  # noqa: PLW0603
    if _folder is None:
        home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        _folder = tempfile.TemporaryDirectory(prefix="samdiag-fuzz-", dir=home)
    return Path(_folder.name)


def put(name: str, data: bytes) -> Path:
    """A file in a folder of its own below `scratch`, replaced."""
    path = scratch() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        path.unlink()
    path.write_bytes(data)
    return path
