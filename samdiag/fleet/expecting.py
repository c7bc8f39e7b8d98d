"""Results held against the list that they should be of: nothing is missing, nothing is of another time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from samdiag.errors import SamdiagError, UsageError
from samdiag.fleet.merging import Merged, Row
from samdiag.fleet.saved_lines import same_name
from samdiag.quoting import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is left of the results, and what of the list has none."""

    merged: Merged
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def read_list(path: Path) -> tuple[str, ...]:
    """The paths in a file that `samdiag inspect … --list` wrote, one per line or each before a NUL.

    Raises:
        UsageError: it cannot be read, or holds none.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown(path)} cannot be read: {why}", "give what `samdiag inspect … --list` wrote") from None
    parts = content.split(b"\0") if b"\0" in content else content.splitlines()
    names = [part.decode("utf-8", "surrogateescape") for part in parts if part.strip()]
    if not names:
        raise UsageError(f"{shown(path)} lists no checkpoint", "give what `samdiag inspect … --list` wrote")
    return tuple(dict.fromkeys(map(same_name, names)))


def hold(merged: Merged, expected: Sequence[str]) -> Held:
    """The records of the listed checkpoints alone, and which of those have none.

    Where a path has records of several contents, those of the content that the file has now stay, if it is there.
    """
    by_path: dict[str, list[Row]] = defaultdict(list)
    for row in merged.rows:
        by_path[row.key.path].append(row)
    wanted = set(expected)
    others = sum(len(rows) for path, rows in by_path.items() if path not in wanted)
    kept, stale = [], 0
    for row in merged.rows:
        if row.key.path in wanted:
            present = _present(row.key.path, by_path[row.key.path])
            if present is None or row.key.fingerprint in ("", present):
                kept.append(row)
            else:
                stale += 1
    notes = []
    if others:
        notes.append(f"{others} record(s) are of no checkpoint in the list, and left out")
    if stale:
        notes.append(f"{stale} record(s) are of what a file held before it was written again, and left out")
    return Held(
        merged=replace(merged, rows=tuple(kept)),
        missing=tuple(path for path in expected if path not in by_path),
        notes=tuple(notes),
    )


def _present(path: str, rows: Sequence[Row]) -> str | None:
    """The fingerprint that tells which of several contents is the present one; None where it cannot."""
    from samdiag.formats.content import look_at

    contents = {row.key.fingerprint for row in rows if row.key.fingerprint}
    if len(contents) < 2:
        return None
    try:
        found = look_at(Path(path)).fingerprint()
    except SamdiagError:  # gone, or a folder
        return None
    return found if found in contents else None
