"""Which paths a pattern means: a glob, in which `**` stands for any folders, or a /regular expression/."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import PurePath

from samdiag.errors import UsageError
from samdiag.quoting import shown

ANY = "**"


def is_glob(path: str) -> bool:
    """Whether a path that the shell has left alone is a pattern, and not a file of such a name."""
    return glob.has_magic(path) and "\0" not in path and not os.path.lexists(path)


def expand(pattern: str) -> Iterator[str]:
    """The paths that a glob matches, hidden ones left out; no link to a folder is followed by a `**`.

    A pattern that ends in `**` yields the folders that the rest of it matches.
    """
    parts = PurePath(pattern).parts
    while parts and parts[-1] == ANY:
        parts = parts[:-1]
    if ANY not in parts:
        yield from glob.iglob(os.path.join(*parts)) if parts else ["."]
        return
    first = parts.index(ANY)
    above = glob.iglob(os.path.join(*parts[:first])) if first else ["."]
    for base in above:
        for path in _below(base):
            if _fits(PurePath(os.path.relpath(path, base)).parts, parts[first:]):
                yield path


def _below(base: str) -> Iterator[str]:
    """Every file and folder under `base` that is not hidden."""
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in (*folders, *files) if not name.startswith("."))


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a path is meant by `--match`: a glob fits it whole or from any of its folders on, a /regex/ anywhere.

    Raises:
        UsageError: the pattern is empty, or no regular expression.
    """
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        try:
            return _searcher(re.compile(pattern[1:-1]))
        except re.error as error:
            what = f"--match {shown(pattern)} is not a regular expression: {error}"
            raise UsageError(
                what, "between slashes goes a regular expression of Python; a glob has no slash at its end"
            ) from None
    if not pattern.strip("/"):
        raise UsageError(f"--match {shown(pattern)!r} matches nothing", "give a glob or a /regular expression/")
    return functools.partial(_fits_end, PurePath(pattern).parts)


def _searcher(expression: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda path: expression.search(path) is not None


def _fits_end(pattern: tuple[str, ...], path: str) -> bool:
    names = PurePath(path).parts
    starts = range(1) if PurePath(*pattern).is_absolute() else range(len(names))
    return any(_fits(names[start:], pattern) for start in starts)


def _fits(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == ANY:
        return any(_fits(names[start:], pattern[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])
