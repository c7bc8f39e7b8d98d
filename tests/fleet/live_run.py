"""A live run played in no time: files appear when a script says so, and a diagnosis takes as long as it is told to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samdiag.errors import CannotDecide
from samdiag.failing import failed
from samdiag.fleet.entries import Entry
from samdiag.fleet.watching import Diagnosed, Ended, Event, Means, Noted, Watched, watch
from samdiag.preparing import Identity
from samdiag.types import CheckpointInfo, Diagnosis, Finding

START = 1_700_000_000.0  # the wall clock when a run begins


def safetensors(num_values: int = 64, mark: int = 0) -> bytes:
    """A valid file of one float32 tensor, all of it `mark`."""
    entry = {"w": {"dtype": "F32", "shape": [num_values], "data_offsets": [0, 4 * num_values]}}
    header = json.dumps(entry).encode()
    return len(header).to_bytes(8, "little") + header + bytes([mark]) * (4 * num_values)


@dataclass(slots=True)
class PlayedRun:
    """A clock that plays a script whenever somebody waits, and the folder that the script writes to."""

    folder: Path
    seconds: float = 0.0
    script: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    inspected: list[tuple[str, float]] = field(default_factory=list)
    takes: float = 0.0
    during: Mapping[str, Callable[[], None]] = field(default_factory=dict)  # what happens while a file is read
    unreadable: frozenset[str] = frozenset()
    known: Callable[[Entry, Identity], Diagnosis | None] | None = None

    # ------------------------------------------------------------ the clock

    def now(self) -> float:
        return 1000.0 + self.seconds  # a monotonic clock starts anywhere

    def wall(self) -> float:
        return START + self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0, "a busy loop"
        assert self.seconds < 100_000, "the watch does not end"
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        end = self.seconds + seconds
        for moment, action in sorted(self.script, key=lambda item: item[0]):
            if self.seconds <= moment <= end and (moment, action) in self.script:
                self.script.remove((moment, action))
                self.seconds = moment
                action()
        self.seconds = end

    # ------------------------------------------------------------ the run

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Plays `action` that many seconds from the start; at 0 at once."""
        if moment <= 0:
            action()
        else:
            self.script.append((moment, action))

    def writes(self, moment: float, name: str, data: bytes) -> None:
        """A file is there with this content from then on."""
        self.at(moment, lambda: self._write(name, data))

    def removes(self, moment: float, name: str) -> None:
        self.at(moment, (self.folder / name).unlink)

    def renames(self, moment: float, old: str, new: str) -> None:
        self.at(moment, lambda: os.replace(self.folder / old, self.folder / new))

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (self.wall(), self.wall()))

    # ------------------------------------------------------------ the watch

    def follow(self, *, roots: tuple[str, ...] | None = None, **watched: Any) -> list[Event]:
        """Everything that a watch tells; it ends after ten idle minutes if nothing else ends it."""
        settings = {"interval": 10.0, "settle": 5.0, "idle_exit": 600.0, "overdue": 1e9, **watched}
        means = Means(identify=self._identify, inspect=self._inspect, known=self.known)
        return list(watch(Watched(roots=roots or (str(self.folder),), **settings), means, self))

    def _identify(self, entry: Entry) -> Identity:
        return Identity(fingerprint=fingerprint(entry.path), request="sha256:asked")

    def _inspect(self, entry: Entry) -> Diagnosis:
        self.inspected.append((self.name(entry.path), self.seconds))
        self._pass(self.takes)
        fails = self.name(entry.path) in self.unreadable
        self.during.get(self.name(entry.path), lambda: None)()
        try:
            if fails:
                raise OSError
            return record(entry.path)
        except OSError:
            error = CannotDecide(f"{entry.path} cannot be read", "…")
            return failed(error, checkpoint=CheckpointInfo(path=entry.path))

    def name(self, path: str) -> str:
        return os.path.relpath(path, self.folder)

    @property
    def names(self) -> list[str]:
        """What was diagnosed, in that order."""
        return [name for name, _ in self.inspected]


def fingerprint(path: str) -> str:
    """Of a file, or of all files in a folder."""
    files = [Path(path)] if os.path.isfile(path) else sorted(p for p in Path(path).iterdir() if p.is_file())
    return "sha256:" + hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def record(path: str, *, findings: tuple[Finding, ...] = ()) -> Diagnosis:
    """A diagnosis of what is at `path` now."""
    return Diagnosis(
        checkpoint=CheckpointInfo(path=path, fingerprint=fingerprint(path)),
        settings={},
        measurements=None,
        verdict="descending",
        findings=findings,
        prescription=None,
        request="sha256:asked",
    )


def notes(events: list[Event]) -> list[tuple[str, str]]:
    """File name and text of every note."""
    return [(os.path.basename(event.path), event.text) for event in events if isinstance(event, Noted)]


def diagnosed(events: list[Event]) -> list[Diagnosed]:
    return [event for event in events if isinstance(event, Diagnosed)]


def ended(events: list[Event]) -> Ended:
    assert isinstance(events[-1], Ended)
    return events[-1]
