"""A checkpoint that is a folder: the names in it, and its files, none of which lies elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide
from samdiag.formats.content import Content, look_at, reading
from samdiag.formats.json_text import is_deeper, parse_json
from samdiag.quoting import quoted, shown

if TYPE_CHECKING:
    from samdiag.formats.checkpoint import Checkpoint

TRAINER_STEP = re.compile(r"checkpoint-\d+")
MAX_NAMES = 100_000  # entries of a folder; a run on 1000 ranks writes some thousand files
MAX_FILE_NAME = 255  # bytes: the limit of the file systems in use
MAX_JSON_DEPTH = 64  # levels; a configuration with sub-models has some 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder as it was when it was listed: its path and the names of what is directly in it."""

    path: Path
    names: frozenset[str]

    @property
    def name(self) -> str:
        """The path, fit for one line of a message."""
        return shown(self.path)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def ending(self, *suffixes: str) -> list[str]:
        """The names that end in one of `suffixes`, sorted."""
        return sorted(name for name in self.names if name.endswith(suffixes))

    def steps(self) -> list[str]:
        """The folders that a Trainer makes, `checkpoint-123`, in the order of their steps."""
        return sorted(filter(TRAINER_STEP.fullmatch, self.names), key=lambda name: int(name.rpartition("-")[2]))

    def file(self, name: str, said_by: str | None = None) -> Content:
        """The content of the file `name`, a bare name that leads to nothing outside the folder.

        A Hugging Face cache keeps its files in `blobs` beside `snapshots` and links to them: such links are followed.

        Args:
            name: as listed, or as an index says it.
            said_by: the index that names it, for messages.

        Raises:
            CannotDecide: the name is not bare, the file is missing, is a link out of the folder, or cannot be read.
        """
        by = f" ({shown(said_by)} names it)" if said_by is not None else ""
        if not is_bare(name):
            raise CannotDecide(
                f"{self.name}: {quoted(name)} is not the name of a file in this folder{by}",
                "an honest index names files beside itself: save the checkpoint again",
            )
        return look_at(self._inside(name, by))

    def folder(self, name: str) -> Folder:
        """The folder `name` in this one, listed; CannotDecide where it is a link out of this one."""
        return list_folder(self._inside(name, ""))

    def _inside(self, name: str, by: str) -> Path:
        path = self.path / name
        with reading(path):
            if not path.exists():
                raise CannotDecide(f"{self.name} lacks {shown(name)}{by}", "copy or download the missing file too")
            target, home = path.resolve(strict=True), self.path.resolve(strict=True)
        if target.parent not in (home, *_blobs(home)):
            raise CannotDecide(
                f"{shown(path)} is a link out of its folder{by}", "copy the file itself there: nothing else is read"
            )
        return path


def is_bare(name: str) -> bool:
    """Whether it is a file's name and no path: no separators, no drive, not `.` or `..`, of a length that can exist."""
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:  # half a character, as JSON can say
        return False
    plain = not any(character in name for character in "/\\:\0") and name not in ("", ".", "..")
    return plain and length <= MAX_FILE_NAME


def _blobs(home: Path) -> list[Path]:
    """Where the files of a Hugging Face cache lie: `models--x/snapshots/<revision>` links to `models--x/blobs`.

    A model of a pipeline lies one level deeper: `models--x/snapshots/<revision>/unet`.
    """
    return [folder.parent / "blobs" for folder in list(home.parents)[:2] if folder.name == "snapshots"]


def is_folder(path: Path) -> bool:
    """Whether there is a folder at `path`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or with a null byte: what opens it as a file says so
        return False


def surroundings(path: Path, names: Iterable[str]) -> Folder:
    """The folder of a file, as if it held only those of `names` that are there: it may be large, and is not listed."""
    folder = path.parent
    return Folder(path=folder, names=frozenset(name for name in names if (folder / name).is_file()))


def list_folder(path: Path) -> Folder:
    """The folder at `path`, listed."""
    path = path if path.name not in ("", "..") else path.resolve()  # "." has no name that messages could show
    names: set[str] = set()
    with reading(path), os.scandir(path) as entries:
        for entry in entries:
            names.add(entry.name)
            if len(names) > MAX_NAMES:
                raise CannotDecide(f"{shown(path)} holds more than {MAX_NAMES} files", "name one checkpoint in it")
    return Folder(path=path, names=frozenset(names))


def read_object(content: Content, max_bytes: int) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CannotDecide: it is larger than `max_bytes`, no JSON object, or nested too deeply.
    """
    todo = "copy or download the file again, or save it again"
    if content.size > max_bytes:
        raise CannotDecide(f"{content.name} has {content.size} bytes, more than the {max_bytes} allowed", todo)
    with reading(content.path):
        text = content.path.read_bytes()
    content.check_unchanged()
    try:
        document = parse_json(text)
    except ValueError as error:
        raise CannotDecide(f"{content.name} is not valid JSON ({shown(error)})", todo) from None
    if not isinstance(document, dict) or is_deeper(document, MAX_JSON_DEPTH):
        raise CannotDecide(f"{content.name} is not a JSON object of at most {MAX_JSON_DEPTH} levels", todo)
    return document


def fingerprint(files: Mapping[str, str]) -> str:
    """ "sha256:<hex>" over the names and the fingerprints of the files that were read, in the order of their names.

    Empty where the files' are: nothing was to be hashed.
    """
    if not any(files.values()):
        return ""
    whole = hashlib.sha256()
    for name, own in sorted(files.items()):
        whole.update(f"{name}\0{own}\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{whole.hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFormat:
    """One way of storing weights in a folder.

    Attributes:
        recognises: whether the names in it are those of this format.
        open: the Checkpoint, or CannotDecide with what is wrong.
    """

    recognises: Callable[[Folder], bool]
    open: Callable[[Folder], Checkpoint]
