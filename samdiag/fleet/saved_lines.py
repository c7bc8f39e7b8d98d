"""The lines of a results file, looked at without making Diagnoses of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from samdiag.errors import UsageError
from samdiag.patience import INTERRUPTED
from samdiag.quoting import shown

START = b'{"format_version":'  # how every record that samdiag writes begins, also after `jq -c`


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What records of the same diagnosis have in common; a text is empty where a failure came before it was known."""

    path: str
    fingerprint: str
    request: str
    samdiag_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One record's place in the file.

    Attributes:
        number: counted from 1.
        offset, length: bytes, without the line's end.
        key: what the record is of.
        finished: neither a failure nor cut short by Ctrl-C.
        has_end: False of a last line that is whole but for its end.
    """

    number: int
    offset: int
    length: int
    key: Key
    finished: bool
    has_end: bool = True


def same_name(path: str | PurePath) -> str:
    """A path as it is compared: as given, without "./", "//" and a final "/"; links are not followed."""
    return str(PurePath(path))


class Scan:
    """Iterates over the records of an open file: each one's place, and what it says as parsed JSON.

    Attributes:
        whole: bytes up to the end of the last record come to; what is behind them in the end was torn in its write.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        """Reads nothing yet.

        Args:
            descriptor: opened for reading.
            path: for messages.
        """
        self._descriptor = descriptor
        self._path = path
        self.whole = 0

    def __iter__(self) -> Iterator[tuple[Line, dict[str, Any]]]:
        """Every record in order.

        Raises:
            UsageError: a line is no record: with its number, or because the whole file is something else.
        """
        self.whole = 0
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            first = file.read(1)
            if not START.startswith(first) and not first.isspace() and first != b"\0":
                raise _refused(first, 1, self._path)  # before a checkpoint is read, whose first "line" may be all of it
            file.seek(0)
            for number, raw in enumerate(file, 1):
                text = raw.rstrip(b"\r\n")
                if text.strip():
                    document = _parsed(text, number, self._path, may_be_torn=not raw.endswith(b"\n"))
                    if document is None:
                        return
                    yield _line(document, raw, text, number, self.whole), document
                self.whole += len(raw)


def _parsed(text: bytes, number: int, path: Path, *, may_be_torn: bool) -> dict[str, Any] | None:
    """A line's record as JSON; None where it is torn."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        if may_be_torn and _torn(text):
            return None
        raise _refused(text, number, path) from None
    if not _is_record(document):
        raise _refused(text, number, path)
    assert isinstance(document, dict)
    return document


def _line(document: Mapping[str, Any], raw: bytes, text: bytes, number: int, offset: int) -> Line:
    return Line(
        number=number,
        offset=offset,
        length=len(text),
        key=key_of(document),
        finished=is_finished(document),
        has_end=raw.endswith(b"\n"),
    )


def _torn(text: bytes) -> bool:
    """Whether this is how a record may begin, or the zeros that a power failure leaves in place of one."""
    begun = text.rstrip(b"\0")[: len(START)]
    return START.startswith(begun)


def _is_record(document: Any) -> bool:
    if not isinstance(document, dict) or "format_version" not in document or "verdict" not in document:
        return False
    checkpoint = document.get("checkpoint")
    return checkpoint is None or (isinstance(checkpoint, dict) and isinstance(checkpoint.get("path"), str))


def _refused(text: bytes, number: int, path: Path) -> UsageError:
    name = shown(path)
    if number == 1 and text == b"{":
        return UsageError(
            f"{name} is one report over several lines, not JSON Lines",
            f"make it one line: jq -c . {name} > all.jsonl",
        )
    if number == 1 and not text.startswith(START):
        return UsageError(f"{name} is not a results file of samdiag", "give a new name, or one that samdiag wrote")
    return UsageError(
        f"{name}, line {number} is not a record of samdiag",
        f"take the line out (sed -i {number}d FILE) and start again: what it was of is then made anew",
    )


def key_of(document: Mapping[str, Any]) -> Key:
    """What a record, as parsed JSON, is of."""
    checkpoint = document.get("checkpoint") or {}
    return Key(
        path=same_name(checkpoint.get("path", "")),
        fingerprint=str(checkpoint.get("fingerprint") or ""),
        request=sys.intern(str(document.get("request") or "")),  # the same few for thousands of records
        samdiag_version=sys.intern(str(document.get("samdiag_version") or "")),
    )


def is_finished(document: Mapping[str, Any]) -> bool:
    """Whether a record says all that was asked: it is no failure, and no Ctrl-C cut its spectrum short."""
    if document.get("failure") is not None:
        return False
    measured = document.get("measurements")
    solver = measured.get("solver") if isinstance(measured, dict) else None
    return not (isinstance(solver, dict) and solver.get("stopped") == INTERRUPTED)
