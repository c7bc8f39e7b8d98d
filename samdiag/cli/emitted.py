"""`--emit FILE`: where the settings may be written, and writing them whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from samdiag.cli.streams import WRITE_TODO
from samdiag.errors import CannotDecide, UsageError
from samdiag.reports.escape import printable
from samdiag.whole_file import replacing, usual_mode

if TYPE_CHECKING:
    from samdiag.types import Diagnosis


def check_target(path: Path, checkpoints: list[str], report: Path | None = None) -> None:
    """Nothing, where FILE can be written for these checkpoints. A file of another origin is never written over.

    Raises:
        UsageError: several checkpoints, an unknown suffix, a checkpoint or a foreign file in the place, the report's
            own file, or no access.
    """
    from samdiag.reports.recipes import check_suffix, is_recipe

    if len(checkpoints) != 1:
        raise UsageError(f"--emit with {len(checkpoints)} checkpoints", "inspect one checkpoint at a time with --emit")
    check_suffix(path.suffix.lower())
    shown = printable(path)
    if report is not None and os.path.realpath(report) == os.path.realpath(path):
        raise UsageError(f"--output and --emit both name {shown}", "give one of the two a name of its own")
    try:
        free = not path.is_dir() and path.parent.is_dir() and os.access(path.parent, os.W_OK)
        taken = path.exists() or path.is_symlink()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        free = taken = False
    if not free:
        raise UsageError(f"cannot write {shown}", "give --emit a file in a folder that exists and is writable")
    if not taken:
        return
    try:
        own = path.is_file() and is_recipe(path.read_text(encoding="utf-8"), path.suffix.lower())
    except (OSError, UnicodeDecodeError):
        own = False
    if not own:
        raise UsageError(f"{shown} exists and was not written by --emit", "give another name, or remove the file first")


def write_settings(path: Path, diagnosis: Diagnosis) -> None:
    """Writes the prescription of `diagnosis` to FILE, in the format of its suffix."""
    from samdiag.reports.recipes import render

    write_whole(path, render(diagnosis, path.suffix.lower()))


def write_whole(path: Path, text: str) -> None:
    """Writes `text` beside FILE and moves it into place, so that a reader sees the old file or the new one.

    Raises:
        CannotDecide: it cannot be written, e.g. because the disk is full.
    """
    try:
        with replacing(path, mode=usual_mode(path)) as beside:
            Path(beside).write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"the settings could not be written to {printable(path)}: {error.strerror or error}"
        raise CannotDecide(what, WRITE_TODO.replace("--output", "--emit")) from error
