"""The project's own file: where it is looked for, and when it is not trusted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import shown
from samdiag.spec.parsing import parse_toml

OWN_FILE = "samdiag.toml"
PYPROJECT = "pyproject.toml"
MAX_BYTES = 1_000_000  # a hand-written file has some thousand


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFile:
    """A file of settings and what is in it."""

    path: Path
    source: str  # its path as messages show it
    document: dict[str, Any]


class RefusedFile(UsageError):
    """A project file that others could have written."""


def find_project_file(cwd: Path) -> ProjectFile | None:
    """The nearest samdiag.toml, else pyproject.toml with [tool.samdiag], in `cwd` or above; None where there is none.

    The search ends with the first folder that holds `.git`, and with the home folder; files further up are not merged.

    Raises:
        RefusedFile: others could have written it.
        UsageError: it is not valid TOML.
    """
    for folder in _folders(cwd):
        for name in (OWN_FILE, PYPROJECT):
            found = _read_if_ours(folder / name, _relative(folder / name, cwd))
            if found is not None:
                return found
    return None


def read_config(path: Path, source: str) -> dict[str, Any]:
    """The settings in a file that the user named; its [tool.samdiag] where it has that table."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{shown(path)} cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    document = parse_toml(_text(content, source), source)
    own = _tool_table(document)
    return document if own is None else own


def _folders(cwd: Path) -> Iterator[Path]:
    home = Path(os.path.expanduser("~"))
    for folder in (cwd, *cwd.parents):
        yield folder
        if folder == home or (folder / ".git").exists():
            return


def _relative(path: Path, cwd: Path) -> str:
    try:
        return shown(os.path.relpath(path, cwd))
    except ValueError:  # another drive
        return shown(path)


def _read_if_ours(path: Path, source: str) -> ProjectFile | None:
    """The file, unless it is absent or a pyproject.toml of another concern; refused where others could write it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}", "check its permissions") from None
    document = _document(path.name, content, source)
    if document is None:
        return None
    _check_ownership(path, status, source)
    return ProjectFile(path=path, source=source, document=document)


def _document(name: str, content: bytes, source: str) -> dict[str, Any] | None:
    """The settings in the file; None for a pyproject.toml that says nothing to samdiag."""
    if name != PYPROJECT:
        return parse_toml(_text(content, source), source)
    if b"samdiag" not in content:
        return None
    return _tool_table(parse_toml(_text(content, source), source))


def _text(content: bytes, source: str) -> str:
    if len(content) > MAX_BYTES:
        raise UsageError(f"{source} is larger than {MAX_BYTES} bytes", "it is no hand-written file: check the path")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{source} is not UTF-8 text", f"correct {source}") from None


def _tool_table(document: dict[str, Any]) -> dict[str, Any] | None:
    tool = document.get("tool")
    own = tool.get("samdiag") if isinstance(tool, dict) else None
    return own if isinstance(own, dict) else None


def _is_open(folder: os.stat_result) -> bool:
    """Whether everybody may put files there."""
    return bool(folder.st_mode & stat.S_IWOTH)


def _check_ownership(path: Path, status: os.stat_result, source: str) -> None:
    """Nothing, or UsageError where somebody else wrote, or could have written, what would be run."""
    if not hasattr(os, "getuid"):  # Windows has no such bits; access lists are not judged
        return
    owner = os.getuid()
    folders = [path.parent.stat(), path.resolve().parent.stat()]  # of a link, and of what it leads to
    reason = ""
    if not {status.st_uid, path.lstat().st_uid} <= {owner, 0}:
        reason = "it belongs to another user"
    elif status.st_mode & stat.S_IWOTH:
        reason = "everybody may write to it"
    elif any(_is_open(folder) and not (folder.st_mode & stat.S_ISVTX and status.st_uid == owner) for folder in folders):
        reason = "it lies in a folder that everybody may write to"
    if reason:
        todo = f"if you trust what it names, pass it yourself: --config {source}; or copy it to a folder of your own"
        raise RefusedFile(f"{source} is refused: {reason}", todo)
