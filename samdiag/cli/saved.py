"""Saved reports as arguments: told apart from checkpoints, read back, and reports of several written out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from samdiag.errors import UsageError
from samdiag.formats import tree
from samdiag.quoting import shown
from samdiag.records import read_records
from samdiag.suggesting import did_you_mean
from samdiag.types import Diagnosis

FORMATS = ("text", "json", "markdown")
STDIN = "/dev/stdin"  # what "-" stands for


def is_saved(path: str) -> bool:
    """Whether a path is a file of saved reports: it begins as JSON does, and is no checkpoint. Stdin ("-") is."""
    if path == "-":
        return True
    if os.path.isdir(path) or tree.is_checkpoint_file(path):
        return False
    if os.path.exists(path) and not os.path.isfile(path):
        return True  # a pipe, as <(…) makes: what is read of it to look is lost
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except (OSError, ValueError):
        return False
    return start.lstrip()[:1] == b"{" or (not start and path.endswith((".json", ".jsonl")))


def read_all(paths: Sequence[str]) -> list[Diagnosis]:
    """Every saved report in the files, in their order.

    Raises:
        UsageError: a path is a checkpoint or a folder, cannot be read, or there is no report in any.
        CannotDecide: a line is no report.
    """
    for path in paths:
        if os.path.isdir(path) or (path != "-" and tree.is_checkpoint_file(path)):
            kind = "folder" if os.path.isdir(path) else "checkpoint"
            what = f"{shown(path)} is a {kind}, and saved reports are read here"
            raise UsageError(what, f"write them first: samdiag inspect {shown(path)} --format json > out.jsonl")
    found = [diagnosis for path in paths for diagnosis in read_records(Path(STDIN if path == "-" else path))]
    if not found:
        what = f"there is no report in {', '.join(map(shown, paths))}"
        raise UsageError(what, "write some with: samdiag inspect DIR --format json > out.jsonl")
    return found


def check_format(format: str) -> None:
    """Nothing, or UsageError where these reports have no such format."""
    if format not in FORMATS:
        near = did_you_mean(format, FORMATS)
        raise UsageError(f"--format {format!r} is unknown{near}", f"choose {', '.join(FORMATS)}")


def needs_ascii(whole_file: bool) -> bool:
    """Whether the blocks of a sparkline cannot be written to stdout; a file is always UTF-8."""
    if whole_file:
        return False
    try:
        "▁↑±…".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False
