"""Results that survive any interruption: a JSON Lines file that is read first, locked, and appended to."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.fleet import locking
from samdiag.fleet.appending import ROOM_TODO, RecordFile, sync_folder, write_all
from samdiag.fleet.entries import Entry
from samdiag.fleet.saved_lines import Key, Line, Scan, is_finished, key_of, same_name
from samdiag.preparing import Identity
from samdiag.quoting import shown
from samdiag.records import parse_record
from samdiag.reports import json_lines
from samdiag.types import Diagnosis

Again = Callable[[Key], bool]


class Ledger:
    """What was finished, on the disk record by record. Use as a context; one process at a time.

    Opening a ledger drops a last line that was torn in the middle of its write, and the failures that this run tries
    again; everything else in it stays, byte for byte. Only where each record is, is kept in memory.

    Attributes:
        path: as given.
        notes: what the user should know: where the file cannot be locked, and what was dropped.
    """

    def __init__(self, path: Path, *, again: Again = lambda _: True, fresh: bool = False) -> None:
        """Opens the file, creating it where it is not there.

        Args:
            path: the results file.
            again: whether an unfinished record (a failure, or one that Ctrl-C cut short) is made again by this run,
                and thus dropped: see `tried_again`. Every one by default.
            fresh: the file is not read; the first record takes the place of what was in it. It may be a pipe, too.

        Raises:
            UsageError: it cannot be written, another process is writing to it, or it is not a results file or has a
                broken line in its middle; then it is left as it is.
            CannotDecide: it could not be put in order, e.g. because the disk is full; then it is left as it is.
        """
        self.path = path
        self._file = RecordFile(path, any_kind=fresh)
        self._places: dict[Key, Line] = {}
        self._fresh = fresh
        self.notes: tuple[str, ...] = (self._file.note,) if self._file.note else ()
        try:
            if not fresh:
                self._open(again)
        except OSError as error:
            self._file.forget()
            what = f"{shown(path)} could not be put in order: {error.strerror or error}"
            raise CannotDecide(what, ROOM_TODO) from error
        except BaseException:
            self._file.forget()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, which gives back the lock."""
        self._file.forget()

    def __len__(self) -> int:
        """How many finished records there are."""
        return len(self._places)

    def has(self, path: str, identity: Identity, version: str) -> bool:
        """Whether `done` has one."""
        return _key(path, identity, version) in self._places

    def done(self, path: str, identity: Identity, version: str) -> Diagnosis | None:
        """The finished record of the same path, content, request and version; None where there is none.

        Paths are compared as they were given, but for "./" and double or final slashes.

        Raises:
            UsageError: there is one, but it is not what samdiag writes.
        """
        line = self._places.get(_key(path, identity, version))
        if line is None:
            return None
        text = os.pread(self._file.descriptor, line.length, line.offset)
        try:
            return parse_record(text, f"{shown(self.path)}, line {line.number}")
        except CannotDecide as error:
            raise UsageError(
                error.what, "take the line out and start again: what it was of is then made anew"
            ) from None

    def append(self, diagnosis: Diagnosis) -> None:
        """One more record, on the disk when this returns. A failure is a record too, but never `done`.

        Raises:
            CannotDecide: the disk is full, or the file can no longer be written; it then ends with the record before.
        """
        document = diagnosis.to_dict()
        text = json_lines.render(diagnosis).encode("ascii")
        if self._fresh:
            self._empty()
        self._file.append(text + b"\n")
        if is_finished(document) and self._file.regular:
            end = os.fstat(self._file.descriptor).st_size
            key = key_of(document)
            self._places[key] = Line(number=0, offset=end - len(text) - 1, length=len(text), key=key, finished=True)

    def _empty(self) -> None:
        try:
            if self._file.regular:
                self._file.cut(0)
        except OSError as error:
            raise CannotDecide(
                f"{shown(self.path)} could not be emptied: {error.strerror or error}", ROOM_TODO
            ) from None
        self._fresh = False

    def _open(self, again: Again) -> None:
        """Reads what is there, and puts it in order where that is needed."""
        found = Scan(self._file.descriptor, self.path)
        lines = [line for line, _ in found]
        kept = [line for line in lines if line.finished or not again(line.key)]
        dropped = len(lines) - len(kept)
        if found.whole < os.fstat(self._file.descriptor).st_size:
            self.notes += (f"the last line of {shown(self.path)} was torn in its write and is dropped",)
            if not dropped:
                self._file.cut(found.whole)
        if dropped:
            self.notes += (f"{dropped} unfinished record(s) in {shown(self.path)} will be made again",)
            kept = self._rewrite(kept)
        elif kept and not kept[-1].has_end:
            write_all(self._file.descriptor, b"\n")
        self._places = {line.key: line for line in kept if line.finished}

    def _rewrite(self, kept: Sequence[Line]) -> list[Line]:
        """Puts a file with these lines alone in the place of this one, in one step and under the same lock.

        The new file has a name of its own beside the old one: only the holder of the lock writes it, so that what a
        killed process leaves of it is written over by the next one.
        """
        real = Path(os.path.realpath(self.path))
        beside = real.with_name(f".{real.name}.samdiag-tmp")
        before = os.fstat(self._file.descriptor)
        with suppress(FileNotFoundError):
            beside.unlink()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(beside, flags, 0o600)
        try:
            locking.take(descriptor, self.path)  # before it has the name that others lock
            placed = [self._copied(line, number, descriptor) for number, line in enumerate(kept, 1)]
            with suppress(OSError):
                os.chown(descriptor, before.st_uid, before.st_gid)
            os.chmod(beside, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
            os.replace(beside, real)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                beside.unlink()
            raise
        self._file.move_to(descriptor)
        sync_folder(real)
        return placed

    def _copied(self, line: Line, number: int, descriptor: int) -> Line:
        """A line at the end of another open file."""
        offset = os.fstat(descriptor).st_size
        write_all(descriptor, os.pread(self._file.descriptor, line.length, line.offset) + b"\n")
        return Line(number=number, offset=offset, length=line.length, key=line.key, finished=line.finished)


def _key(path: str, identity: Identity, version: str) -> Key:
    return Key(
        path=same_name(path), fingerprint=identity.fingerprint, request=identity.request, samdiag_version=version
    )


def tried_again(entries: Iterable[Entry], identify: Callable[[Entry], Identity]) -> Again:
    """Which unfinished records a run over `entries` makes again: those of an equal path and request.

    One of other settings is none of this run's business. Where a record does not say what was asked, or that cannot
    be known now because the checkpoint cannot be opened, an equal path is enough.

    Args:
        entries: the run's.
        identify: as `Session.identify`; only called for paths with an unfinished record.
    """
    by_path: Mapping[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_path[same_name(entry.path)].append(entry)

    def again(key: Key) -> bool:
        mine = by_path.get(key.path, [])
        if not mine or not key.request:
            return bool(mine)
        for entry in mine:
            try:
                if identify(entry).request == key.request:
                    return True
            except SamdiagError:
                return True
        return False

    return again
