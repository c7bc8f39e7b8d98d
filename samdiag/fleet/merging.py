"""Results of several runs as one: what each says once, in the order of a list.

Which records stay:

1. Finished records of equal path, content, request and version that say the same, but for timings and the machine, are
   one. Where they differ, the more harmful verdict stays, so that no gate passes because of a merge; of equally harmful
   ones that of the later file.
2. Of finished records that differ in the version alone, that of the newest stays.
3. An unfinished record (a failure, or one that Ctrl-C cut short) goes where a finished one has the same path, content
   and request; what it does not say itself, because the checkpoint could not be opened, may be any. Of several
   unfinished ones with the same path, content and request the last stays, one cut short before any failure.

Everything else stays: other requests, and other contents that the same path had at another time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from samdiag.errors import UsageError
from samdiag.fleet.saved_lines import Key, Line, Scan
from samdiag.formats.steps import natural
from samdiag.quoting import listed, shown
from samdiag.records import parse_record
from samdiag.types import VERDICTS_BY_HARM, Diagnosis

CONTENT = ("verdict", "findings", "measurements", "prescription", "probe")  # what a diagnosis says of the weights
READ_TODO = "give files that `samdiag inspect … --format json` or --resume wrote"
_HARM = {verdict: place for place, verdict in enumerate(VERDICTS_BY_HARM)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A record of one of the files.

    Attributes:
        source: which file.
        line: its place there.
        verdict, failed: what it says.
        seed: that it was measured with; None: it does not say.
        order: its place in the list.
    """

    source: int
    line: Line
    verdict: str
    failed: bool
    seed: int | None
    order: tuple[Any, ...]

    @property
    def key(self) -> Key:
        return self.line.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The union of several files; read from them as it is asked for, while `merging` keeps them open.

    Attributes:
        paths: the files.
        rows: the records that stay, in order.
        notes: what the user should know, one line each.
        num_torn: files whose last line was torn in its write: at least so many records are missing.
    """

    paths: tuple[Path, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    descriptors: tuple[int, ...]
    num_torn: int = 0

    def texts(self) -> Iterator[bytes]:
        """Every record as it stands in its file, without a line's end."""
        for row in self.rows:
            yield _text(row, self.descriptors)

    def diagnoses(self) -> Iterator[tuple[Diagnosis, int | None]]:
        """Every record, and its seed where the same checkpoint was asked about with several.

        Raises:
            CannotDecide: one is not what this version of samdiag writes.
        """
        seeds: dict[tuple[str, str], set[int | None]] = defaultdict(set)
        for row in self.rows:
            seeds[row.key.path, row.key.fingerprint].add(row.seed)
        for row, text in zip(self.rows, self.texts(), strict=True):
            several = len(seeds[row.key.path, row.key.fingerprint]) > 1
            where = f"{shown(self.paths[row.source])}, line {row.line.number}"
            yield parse_record(text, where), row.seed if several else None


@contextmanager
def merging(paths: Sequence[Path]) -> Iterator[Merged]:
    """The union of the records in these files; a last line that was torn in its write is left out, and noted.

    Raises:
        UsageError: a file cannot be read, or holds something else than records.
    """
    with ExitStack() as opened:
        rows: list[Row] = []
        notes: list[str] = []
        num_torn = 0
        descriptors = tuple(opened.enter_context(_readable(path)) for path in paths)
        for source, (path, descriptor) in enumerate(zip(paths, descriptors, strict=True)):
            found = Scan(descriptor, path)
            rows += [_row(source, line, document) for line, document in found]
            if found.whole < os.fstat(descriptor).st_size:
                num_torn += 1
                notes.append(f"the last line of {shown(path)} was torn in its write: what it was of is missing")
        kept, differing = _union(rows, lambda row: _content(json.loads(_text(row, descriptors))))
        yield Merged(
            paths=tuple(paths),
            rows=tuple(sorted(kept, key=lambda row: row.order)),
            notes=(*notes, *differing),
            descriptors=descriptors,
            num_torn=num_torn,
        )


def key_set(path: Path) -> set[Key]:
    """What the finished records of a file are of.

    Raises:
        UsageError: as `merging`.
    """
    with _readable(path) as descriptor:
        return {line.key for line, _ in Scan(descriptor, path) if line.finished}


@contextmanager
def _readable(path: Path) -> Iterator[int]:
    """A descriptor of JSON Lines that can be read at any place: the file's own, or of a copy where it is none."""
    try:
        file: IO[bytes] = path.open("rb")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown(path)} cannot be read: {why}", READ_TODO) from None
    with ExitStack() as opened:
        opened.enter_context(file)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe: <(ssh host cat out.jsonl)
            copy = opened.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            copy.flush()
            file = copy
            file.seek(0)
        if file.read(2) == b"{\n":  # the report of a single checkpoint
            file.seek(0)
            file = opened.enter_context(_on_one_line(file.read(), path))
        yield file.fileno()


@contextmanager
def _on_one_line(text: bytes, path: Path) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        try:
            file.write(json.dumps(json.loads(text)).encode("ascii") + b"\n")
        except (ValueError, RecursionError):
            raise UsageError(f"{shown(path)} is not JSON", READ_TODO) from None
        file.flush()
        yield file


def _text(row: Row, descriptors: Sequence[int]) -> bytes:
    return os.pread(descriptors[row.source], row.line.length, row.line.offset)


def _row(source: int, line: Line, document: Mapping[str, Any]) -> Row:
    setting = (document.get("settings") or {}).get("measure.seed")
    seed = setting.get("value") if isinstance(setting, dict) else None
    seed = seed if isinstance(seed, int) else None
    step = (document.get("checkpoint") or {}).get("step")
    return Row(
        source=source,
        line=line,
        verdict=str(document.get("verdict")),
        failed=document.get("failure") is not None,
        seed=seed,
        order=_order(line.key.path, step if isinstance(step, int) else None, seed),
    )


def _content(document: Mapping[str, Any]) -> bytes:
    """A hash of what a record says of the weights, without what differs from run to run: seconds and the machine."""
    said = {name: document.get(name) for name in CONTENT}
    for name, timed in (("measurements", "engine"), ("probe", "seconds")):
        found = said[name]
        if isinstance(found, dict):
            said[name] = {**found, timed: None}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


def _order(path: str, step: int | None, seed: int | None) -> tuple[Any, ...]:
    """By folder, training step, name and seed; numbers in names by their value."""
    name = PurePath(path)
    return (natural(str(name.parent)), step is None, step or 0, natural(name.name), seed or 0)


def _union(rows: Iterable[Row], content: Callable[[Row], bytes]) -> tuple[list[Row], list[str]]:
    """The rows that stay, and a line for each kind of difference.

    `content` is asked only where there are several records of the same, because it reads them again.
    """
    finished: dict[Key, list[Row]] = defaultdict(list)
    unfinished: list[Row] = []
    for row in rows:
        if row.line.finished:
            finished[row.key].append(row)
        else:
            unfinished.append(row)
    several = [[(row, content(row)) for row in same] for same in finished.values() if len(same) > 1]
    single = [same[0] for same in finished.values() if len(same) == 1]
    kept = _newest([*single, *map(_chosen, several)])
    return [*kept, *_still_open(unfinished, kept)], _differences(several)


def _chosen(same: Sequence[tuple[Row, bytes]]) -> Row:
    """Of records of the same diagnosis the most harmful; of equally harmful ones the last, but the first of equals."""
    worst = min(_harm(row) for row, _ in same)
    _, last = [(row, content) for row, content in same if _harm(row) == worst][-1]
    return next(row for row, content in same if content == last)


def _harm(row: Row) -> int:
    return _HARM.get(row.verdict, -1)  # an unknown verdict counts as worse than any


def _newest(rows: Iterable[Row]) -> list[Row]:
    newest: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        question = (row.key.path, row.key.fingerprint, row.key.request)
        other = newest.get(question)
        if other is None or natural(row.key.samdiag_version) > natural(other.key.samdiag_version):
            newest[question] = row
    return list(newest.values())


def _still_open(unfinished: Iterable[Row], finished: Iterable[Row]) -> list[Row]:
    """The unfinished records that no finished one answers."""
    answered: set[tuple[str, str, str]] = set()
    for row in finished:
        path, content, request = row.key.path, row.key.fingerprint, row.key.request
        answered |= {(path, c, r) for c in (content, "") for r in (request, "")}
    left: dict[tuple[str, str, str], Row] = {}
    for row in unfinished:
        question = (row.key.path, row.key.fingerprint, row.key.request)
        other = left.get(question)
        if question not in answered and (other is None or other.failed or not row.failed):
            left[question] = row
    return list(left.values())


def _differences(groups: Iterable[Sequence[tuple[Row, bytes]]]) -> list[str]:
    """Where runs of the same say different things: one line for verdicts, one for numbers."""
    verdicts: list[str] = []
    numbers: list[str] = []
    for same in groups:
        path = same[0][0].key.path
        said = list(dict.fromkeys(row.verdict for row, _ in same))
        if len(said) > 1:
            verdicts.append(f"{path} ({', '.join(said)})")
        elif len({content for _, content in same}) > 1:
            numbers.append(path)
    notes = []
    if verdicts:
        notes.append(
            f"different verdicts for the same weights and settings; the most harmful is kept: {listed(verdicts)}"
        )
    if numbers:
        notes.append(f"different numbers for the same weights and settings; the later are kept: {listed(numbers)}")
    return notes
