"""`samdiag info`: what a checkpoint says about itself, as text or JSON. Every text from the checkpoint is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from samdiag.encoding import as_object
from samdiag.reports.escape import printable
from samdiag.reports.provenance import value_text

if TYPE_CHECKING:
    from samdiag.errors import SamdiagError
    from samdiag.formats.summary import Summary, TensorLine

FORMAT_VERSION = 1
NUM_LARGEST = 5  # tensors shown where not all were asked for
MAX_NAME = 80  # characters of a tensor's name: twice what honest ones have
MAX_LINES = 40  # of a table of hyper-parameters or metadata
LABEL = 18  # columns of the left side: "hyper-parameters" and a gap
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def render(summary: Summary, *, all_tensors: bool = False) -> str:
    """The report as lines of text, without a final newline.

    Args:
        summary: of one checkpoint.
        all_tensors: every tensor in the file's order, and not only the largest.
    """
    return "\n".join([printable(summary.path), *_lines(summary, all_tensors)])


def render_json(summary: Summary, *, all_tensors: bool = False, indent: int | None = None) -> str:
    """The report as one JSON object; `tensors` are all, in the file's order, or the largest, largest first."""
    found = as_object(summary)
    shown = summary.tensors if all_tensors else _largest(summary)
    found["num_tensors"] = len(summary.tensors)
    found["tensors"] = [as_object(line) for line in shown]
    return json.dumps({"format_version": FORMAT_VERSION, **found, "failure": None}, indent=indent, allow_nan=False)


def render_failure(path: str, error: SamdiagError, *, indent: int | None = None) -> str:
    """The JSON object of a checkpoint that could not be read."""
    failure = {"what": error.what, "todo": error.todo, "exit_code": error.exit_code}
    return json.dumps({"format_version": FORMAT_VERSION, "path": path, "failure": failure}, indent=indent)


def size(num_bytes: int) -> str:
    """A number of bytes for people: "982 bytes", "46.9 MB"; a kB has 1000."""
    value, unit = float(num_bytes), 0
    while value >= 999.5 and unit < len(UNITS) - 1:  # what would be written as 1000
        value, unit = value / 1000, unit + 1
    return f"{num_bytes} bytes" if unit == 0 else f"{value:.3g} {UNITS[unit]}"


def _lines(summary: Summary, all_tensors: bool) -> Iterator[str]:
    yield _row("format", printable(summary.format))
    if summary.file_bytes is not None:
        yield _row("file", size(summary.file_bytes))
    if summary.fingerprint is not None:
        yield _row("fingerprint", printable(summary.fingerprint))
    yield _row("tensors", f"{len(summary.tensors)}, {size(summary.num_bytes)}")
    yield _row("parameters", f"{summary.num_parameters:,}".replace(",", " "))
    shares = (f"{printable(share.dtype)} ({share.num_tensors}, {size(share.num_bytes)})" for share in summary.dtypes)
    yield from _rows("dtypes", [", ".join(shares)] if summary.dtypes else [])
    shown = summary.tensors if all_tensors else _largest(summary)
    yield from _rows("all tensors" if all_tensors else "largest", list(_tensor_lines(shown)))
    yield from _said(summary)
    yield from _rows("notes", [printable(note) for note in summary.notes])


def _said(summary: Summary) -> Iterator[str]:
    """What the checkpoint says about model, data and training, the nearest first."""
    yield from _rows("stamp", _document(summary.stamp or {}))
    for said in summary.embedded:
        yield from _rows(printable(said.source, limit=40), _document(said.document))
    hints = [f"{printable(hint.name)} = {value_text(hint.value)} ({printable(hint.source)})" for hint in summary.hints]
    yield from _rows("hints", hints)
    yield from _rows("arguments", _bounded(summary.hyper_parameters))
    yield from _rows("configuration", _bounded(summary.configuration))
    yield from _rows("metadata", _bounded(summary.metadata))


def _largest(summary: Summary) -> tuple[TensorLine, ...]:
    return tuple(sorted(summary.tensors, key=lambda line: -line.num_bytes)[:NUM_LARGEST])


def _tensor_lines(tensors: tuple[TensorLine, ...]) -> Iterator[str]:
    rows = [
        (
            printable(line.name, limit=MAX_NAME),
            "×".join(map(str, line.shape)) or "scalar",
            printable(line.dtype),
            size(line.num_bytes),
        )
        for line in tensors
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _document(document: Mapping[str, Any]) -> list[str]:
    """A spec document with dotted names, one setting a line."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        inner = value if isinstance(value, Mapping) and key in ("sam", "measure", "gate") else None
        flat |= {f"{key}.{name}": item for name, item in inner.items()} if inner is not None else {key: value}
    return _bounded(flat)


def _bounded(table: Mapping[str, Any]) -> list[str]:
    lines = [f"{printable(key, limit=MAX_NAME)} = {value_text(value)}" for key, value in _first(table)]
    return [*lines, f"… and {len(table) - MAX_LINES} more"] if len(table) > MAX_LINES else lines


def _first(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [item for item, _ in zip(table.items(), range(MAX_LINES), strict=False)]


def _rows(label: str, texts: list[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield _row(label if number == 0 else "", text)


def _row(label: str, text: str) -> str:
    return f"  {label.ljust(LABEL)}{text}" if len(label) < LABEL else f"  {label}\n  {' ' * LABEL}{text}"
