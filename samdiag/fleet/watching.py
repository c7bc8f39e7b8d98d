"""Following a live run's folders: each checkpoint is diagnosed once it is complete, and again when it is rewritten."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from samdiag.errors import CannotDecide, SamdiagError
from samdiag.failing import failed
from samdiag.fleet.clock import Clock
from samdiag.fleet.entries import Entry
from samdiag.fleet.settled import CHANGING, is_checkpoint, missing
from samdiag.fleet.sightings import glance, look
from samdiag.fleet.waiting import Place, State, WaitingLine
from samdiag.preparing import Identity
from samdiag.types import CheckpointInfo, Diagnosis

GONE_TODO = "the run keeps only its last checkpoints: keep more, diagnose faster, or say --newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is watched, and for how long.

    Attributes:
        roots: the runs' folders.
        wanted: whether the checkpoint of a path is; None: all are.
        interval: seconds between two looks at the folders.
        settle: seconds for which no file of a checkpoint may change before it is opened.
        overdue: seconds after which a checkpoint that stays incomplete is diagnosed as it is.
        newest: of several that wait in one folder only the newest is diagnosed.
        once: what is there now is diagnosed, and nothing is waited for but `settle`.
        idle_exit: seconds without any change after which the watch ends; None: never.
        until_file: a file that ends the watch when it is there, in every one of `roots`, or at its own path.
    """

    roots: tuple[str, ...]
    wanted: Callable[[str], bool] | None = None
    interval: float = 10.0
    settle: float = 5.0
    overdue: float = 600.0  # ten minutes: no writer pauses so long in the middle of a file
    newest: bool = False
    once: bool = False
    idle_exit: float | None = None
    until_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A checkpoint is complete and is being diagnosed; `waiting` others have stopped changing as well."""

    path: str
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """A checkpoint's diagnosis; `known`: made by an earlier watch, and not again."""

    diagnosis: Diagnosis
    waiting: int
    known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """One line about a checkpoint, or a folder, of which there is no diagnosis (now)."""

    path: str
    text: str


class Reason(StrEnum):
    """Why a watch came to its end."""

    ONCE = "everything that was there was looked at"
    IDLE = "nothing changed any more"
    STOP_FILE = "the file that ends the watch is there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The last event; `left` are those that were seen and not diagnosed, each with the reason."""

    reason: Reason
    left: tuple[tuple[str, str], ...] = ()


Event = Begun | Diagnosed | Noted | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """How a checkpoint is diagnosed.

    Attributes:
        identify: fingerprint and request of an entry; raises SamdiagError where it cannot be opened.
        inspect: its diagnosis; never raises for an expected failure.
        known: the diagnosis that an earlier watch made of the same, None where there is none; a watch without a
            history has no such function.
    """

    identify: Callable[[Entry], Identity]
    inspect: Callable[[Entry], Diagnosis]
    known: Callable[[Entry, Identity], Diagnosis | None] | None = None


def watch(watched: Watched, means: Means, clock: Clock) -> Iterator[Event]:
    """What happens in the watched folders, as it happens, until the watch ends; whoever has enough stops asking.

    The folders are polled: shared file systems have no events. A poll reads names, sizes and times alone.

    Raises:
        KeyboardInterrupt: passed on.
    """
    return _Watch(watched, means, clock).events()


class _Watch:
    """The state of one watch."""

    def __init__(self, watched: Watched, means: Means, clock: Clock) -> None:
        self.watched, self.means, self.clock = watched, means, clock
        self.line = WaitingLine(watched.settle)
        self.identities: dict[str, Identity] = {}  # of what was diagnosed last under each path
        self.told: dict[str, str] = {}  # the last note about each path
        self.active = clock.now()  # when something last changed, or was finished
        self.looked = -math.inf
        self.closing: Reason | None = None
        self.last_look = math.inf  # no look after this moment

    def events(self) -> Iterator[Event]:
        while True:
            if self._is_look_due():
                yield from self._look()
            place = yield from self._choose()
            if place is not None:
                yield from self._diagnose(place)
                self.active = self.clock.now()
            elif (reason := self._over()) is not None:
                yield Ended(reason=reason, left=tuple(self._left()))
                return
            else:
                self.clock.sleep(self._pause())

    def _is_look_due(self) -> bool:
        now = self.clock.now()
        return self.looked < self.last_look and now >= min(self._next_look(), self.last_look)

    def _next_look(self) -> float:
        settled = self.line.next_settled()
        regular = self.looked + self.watched.interval
        return regular if settled is None else min(regular, settled)

    def _pause(self) -> float:
        """Seconds until there is something to do."""
        now, moments = self.clock.now(), [self._next_look(), self.last_look]
        if self.watched.idle_exit is not None:
            moments.append(self.active + self.watched.idle_exit)
        return max(min(moments) - now, 0.001)  # never a busy loop, whatever rounding does

    def _look(self) -> Iterator[Event]:
        """One look at all folders."""
        now = self.looked = self.clock.now()
        if self.closing is None and (reason := self._reason_to_close()) is not None:
            self.closing, self.last_look = reason, now + self.watched.settle
        for root in self.watched.roots:
            try:
                found = look(root, self.watched.wanted)
            except OSError as error:  # what is known of it is kept: network file systems come and go
                yield from self._note(root, f"cannot be listed: {error.strerror or type(error).__name__}")
                continue
            self.told.pop(root, None)
            changed, gone = self.line.see(root, found, now)
            if changed:
                self.active = now
            for place in gone:
                yield from self._forget(place)

    def _forget(self, place: Place) -> Iterator[Event]:
        """Forgets a checkpoint that is gone, and says so where it was never diagnosed."""
        self.line.forget(place)
        self.identities.pop(place.path, None)
        self.told.pop(place.path, None)
        if place.state is not State.DONE:
            yield Noted(path=place.path, text="vanished before it was diagnosed")

    def _reason_to_close(self) -> Reason | None:
        if self.watched.once:
            return Reason.ONCE
        name = self.watched.until_file
        if name is None:
            return None
        if os.path.dirname(name):
            there = os.path.exists(name)
        else:
            there = all(os.path.exists(os.path.join(root, name)) for root in self.watched.roots)
        return Reason.STOP_FILE if there else None

    def _over(self) -> Reason | None:
        """Why the watch ends now, with nothing left to diagnose; None: it goes on."""
        if self.looked >= self.last_look:
            return self.closing
        idle = self.watched.idle_exit
        if idle is None or self.line.next_settled() is not None or self.clock.now() < self.active + idle:
            return None
        return Reason.IDLE

    def _left(self) -> Iterator[tuple[str, str]]:
        for place in (*self.line.of(State.SETTLING), *self.line.of(State.INCOMPLETE)):
            yield place.path, CHANGING if place.state is State.SETTLING else "it is incomplete"

    def _choose(self) -> Generator[Event, None, Place | None]:
        """The next checkpoint to diagnose: the first that is complete, or that will never be."""
        settled = self.line.of(State.SETTLED)
        for place in sorted(settled, key=Place.age, reverse=True) if self.watched.newest else settled:
            reason = missing(place.sighting)
            if reason is None and is_checkpoint(place.sighting):
                if self.watched.newest:
                    yield from self._pass_over(place)
                return place
            if reason is None:
                place.state = State.DONE
                yield from self._note(place.path, "is left alone: its content is that of no checkpoint")
                continue
            place.state, place.reason = State.INCOMPLETE, reason
            if reason == CHANGING:
                place.state, place.since = State.SETTLING, self.clock.now()
        for place in self.line.of(State.INCOMPLETE):
            if self._is_overdue(place):
                return place
            yield from self._note(place.path, f"is incomplete: {place.reason}")
        return None

    def _is_overdue(self, place: Place) -> bool:
        """Whether an incomplete checkpoint will stay so: nobody has written to it for long, or the run is over."""
        if self.closing is Reason.STOP_FILE and self.looked >= self.last_look:
            return True
        watched = self.clock.now() - place.since
        return max(watched, self.clock.wall() - place.sighting.touched()) >= self.watched.overdue

    def _pass_over(self, chosen: Place) -> Iterator[Event]:
        """Leaves those that are older than `chosen` in the same folder."""
        for place in self.line.of(State.SETTLED):
            if place.root == chosen.root and place.age() < chosen.age():
                place.state = State.DONE
                yield Noted(path=place.path, text="is passed over: a newer one is there (--newest)")

    def _diagnose(self, place: Place) -> Iterator[Event]:
        """What comes of one checkpoint, which was complete a moment ago or never will be."""
        if glance(place.sighting) is None:
            yield from self._forget(place)
            return
        incomplete = place.reason if place.state is State.INCOMPLETE else ""
        place.state = State.DONE
        entry = Entry(path=place.path, step=place.step)
        waiting = self.line.count(State.SETTLED)
        identity = self._identity(entry)
        if identity is not None:
            if identity == self.identities.get(entry.path):
                return  # written again with the same content
            if self.means.known is not None and (earlier := self.means.known(entry, identity)) is not None:
                self.identities[entry.path] = identity
                yield Diagnosed(diagnosis=earlier, waiting=waiting, known=True)
                return
        yield Begun(path=place.path, waiting=waiting)
        diagnosis = self.means.inspect(entry)
        if diagnosis.failure is not None and (now := glance(place.sighting)) != place.sighting.stamp:
            if now is not None:  # the next look sees it as new
                yield Noted(
                    path=place.path, text="was rewritten while it was being read: once more when it is complete"
                )
                return
            what = f"{place.path} vanished while it was being read"
            diagnosis = _replaced(diagnosis, place, CannotDecide(what, GONE_TODO))
        elif diagnosis.failure is not None and incomplete:
            what = f"{place.path} is incomplete, and nobody writes to it any more: {incomplete}"
            diagnosis = _replaced(diagnosis, place, CannotDecide(what, "if its save was interrupted, remove it"))
        elif diagnosis.failure is None and diagnosis.checkpoint is not None:
            fingerprint = diagnosis.checkpoint.fingerprint or ""
            self.identities[entry.path] = Identity(fingerprint=fingerprint, request=diagnosis.request)
        yield Diagnosed(diagnosis=diagnosis, waiting=waiting)

    def _identity(self, entry: Entry) -> Identity | None:
        """What the diagnosis of `entry` would be known by; None where nothing is known yet, or it cannot be opened."""
        if self.means.known is None and entry.path not in self.identities:
            return None
        try:
            return self.means.identify(entry)
        except SamdiagError:
            return None  # its diagnosis will say why

    def _note(self, path: str, text: str) -> Iterator[Event]:
        """The same about the same is said once."""
        if self.told.get(path) != text:
            self.told[path] = text
            yield Noted(path=path, text=text)


def _replaced(diagnosis: Diagnosis, place: Place, error: CannotDecide) -> Diagnosis:
    """The failed `diagnosis` with another reason."""
    return replace(
        failed(error, checkpoint=diagnosis.checkpoint or CheckpointInfo(path=place.path)),
        settings=diagnosis.settings,
        request=diagnosis.request,
        timings=diagnosis.timings,
    )
