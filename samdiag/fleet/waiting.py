"""The line in which the checkpoints of a live run wait: settling, settled, incomplete, done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from samdiag.fleet.sightings import Kind, Sighting
from samdiag.formats.steps import step_in_name


class State(Enum):
    """How far a checkpoint has come."""

    SETTLING = auto()  # its files changed a moment ago
    SETTLED = auto()  # they stopped changing
    INCOMPLETE = auto()  # and yet something is missing
    DONE = auto()


@dataclass(slots=True)
class Place:
    """One checkpoint's place in the line.

    Attributes:
        sighting: as it was last seen.
        root: the watched folder that it lies in.
        since: when it was first seen like this.
        state: how far it has come.
        step: that its name says.
        reason: what is missing where it is incomplete.
    """

    sighting: Sighting
    root: str
    since: float
    step: int | None = None
    state: State = State.SETTLING
    reason: str = ""

    @property
    def path(self) -> str:
        return self.sighting.path

    def order(self) -> tuple[bool, int, float, str]:
        """By training step; those whose name says none come last, by their time."""
        return (self.step is None, self.step or 0, self.sighting.modified, self.path)

    def age(self) -> tuple[float, str]:
        """By the time of the last write."""
        return (self.sighting.modified, self.path)


class WaitingLine:
    """Every checkpoint that lies in the watched folders now.

    Args:
        settle: seconds without a change after which one is settled.
    """

    def __init__(self, settle: float) -> None:
        self.settle = settle
        self.places: dict[str, Place] = {}

    def see(self, root: str, found: Iterable[Sighting], now: float) -> tuple[bool, list[Place]]:
        """Takes in what was seen in `root`; whether anything had changed, and those that are gone, now forgotten."""
        changed, present = False, set()
        for sighting in found:
            present.add(sighting.path)
            place = self.places.get(sighting.path)
            if place is None or place.sighting != sighting:
                self.places[sighting.path] = Place(sighting, root, now, step=step_in_name(sighting.path))
                changed = True
            elif place.state is State.SETTLING and now >= place.since + self.settle:
                place.state = State.SETTLED
            elif place.state is State.INCOMPLETE and sighting.kind is Kind.INDEX:
                place.state = State.SETTLED  # what it lacks may have a name that its stamp does not look at
        gone = [place for place in self.places.values() if place.root == root and place.path not in present]
        for place in gone:
            self.forget(place)
        return changed or bool(gone), gone

    def forget(self, place: Place) -> None:
        """As if it had never been seen."""
        self.places.pop(place.path, None)

    def of(self, state: State) -> list[Place]:
        """Those that have come so far and no further, in the order of their steps."""
        return sorted((place for place in self.places.values() if place.state is state), key=Place.order)

    def count(self, state: State) -> int:
        """How many have come so far and no further."""
        return sum(place.state is state for place in self.places.values())

    def next_settled(self) -> float | None:
        """When the next one will have settled, if nothing changes; None where none is settling."""
        return min((p.since + self.settle for p in self.places.values() if p.state is State.SETTLING), default=None)
