"""Saved JSON reports, read back as the Diagnoses that they were written from. Nothing here imports torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.quoting import shown
from samdiag.types import FORMAT_VERSION, Diagnosis

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@functools.cache
def _adapter() -> TypeAdapter[Diagnosis]:
    from pydantic import TypeAdapter

    return TypeAdapter(Diagnosis)


def parse_record(text: str | bytes, where: str) -> Diagnosis:
    """The Diagnosis that one JSON object (a line of JSON Lines, or a whole file) says.

    Args:
        text: as `reports.json_lines.render` writes it.
        where: what it came from, for messages: "out.jsonl, line 3".

    Raises:
        CannotDecide: it is no JSON, no report of samdiag, or one of another format version.
    """
    todo = "write it again with `samdiag inspect … --format json`"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise CannotDecide(f"{where} is not JSON", todo) from None
    return record_of(document, where)


def record_of(document: Any, where: str) -> Diagnosis:
    """The same of a JSON value that was parsed already."""
    from pydantic import ValidationError

    todo = "write it again with `samdiag inspect … --format json`"
    if not isinstance(document, dict) or "format_version" not in document or "verdict" not in document:
        raise CannotDecide(f"{where} is not a report of samdiag", todo)
    if document["format_version"] != FORMAT_VERSION:
        what = f"{where} has format version {document['format_version']!r}; this samdiag reads {FORMAT_VERSION}"
        raise CannotDecide(what, todo)
    try:
        return _adapter().validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CannotDecide(f"{where} is not a report of samdiag: {shown(place)}: {first['msg']}", todo) from None


def read_records(path: Path) -> Iterator[Diagnosis]:
    """Every report in a file: JSON Lines, or one object over many lines as `inspect` writes for a single checkpoint.

    A last line without its end is what an interrupted write leaves, and is passed over in silence; so is an empty file.

    Raises:
        UsageError: the file cannot be read.
        CannotDecide: a line is not a report.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        what = f"{shown(path)} cannot be read: {error.strerror or error}"
        raise UsageError(what, "give a file that `samdiag inspect … --format json` wrote") from None
    if text[:2] == b"{\n":  # indented
        yield parse_record(text, shown(path))
        return
    lines = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        last = number == len(lines)
        if not line.strip() or (last and not _is_whole(line)):
            continue
        yield parse_record(line, f"{shown(path)}, line {number}")


def _is_whole(line: bytes) -> bool:
    """Whether a line without its end is complete all the same, as after `printf '%s'`."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
