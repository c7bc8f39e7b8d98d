"""A list of checkpoints, one record after the other: made now, or taken from what an earlier run has finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from samdiag.errors import SamdiagError
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.ledger import Ledger
from samdiag.fleet.session import Session
from samdiag.fleet.workers import diagnose_in_order
from samdiag.patience import Patience
from samdiag.preparing import Identity
from samdiag.types import Diagnosis

Stage = Callable[[Entry, str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One record: of which entry, and whether an earlier run had finished it already."""

    entry: Entry
    diagnosis: Diagnosis
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a list is gone through.

    Attributes:
        entries: in the order of the results.
        asked: about each of them.
        ledger: what was finished before; every record that is made is in it before it is returned. None: nowhere.
        num_workers: processes beside this one; 0: this one does it.
        stop: asked between two checkpoints; True: those in hand are finished, and no new one is begun.
        progress: told what is being done to which entry, and the number of products so far.
        announce: told lines for the user.
        patience: of this process's measurements.
    """

    entries: Sequence[Entry]
    asked: Asked
    ledger: Ledger | None = None
    num_workers: int = 0
    stop: Callable[[], bool] = lambda: False
    progress: Stage | None = None
    announce: Callable[[str], None] | None = None
    patience: Patience | None = None

    def records(self) -> Iterator[Made]:
        """Every record in the order of the entries.

        Raises:
            CannotDecide: a record cannot be written to the ledger; those before it are there.
            KeyboardInterrupt: passed on.
        """
        with Session(self.asked) as session:
            made = self._by_workers(session) if self.num_workers else self._here(session)
            for record in made:
                if self.ledger is not None and not record.reused:
                    self.ledger.append(record.diagnosis)
                yield record

    def _here(self, session: Session) -> Iterator[Made]:
        for place, entry in enumerate(self.entries):
            if self.stop():
                return
            identity = self._finished(session, entry)
            if identity is not None:
                yield Made(entry=entry, diagnosis=self._record(entry, identity), reused=True)
                continue
            if place + 1 < len(self.entries):
                session.read_ahead(self.entries[place + 1])
            diagnosis = session.inspect(
                entry, progress=self._telling(entry), patience=self.patience, announce=self.announce
            )
            yield Made(entry=entry, diagnosis=diagnosis)

    def _by_workers(self, session: Session) -> Iterator[Made]:
        """Results of the workers with the known ones between them, as the list has them."""
        planned: deque[tuple[Entry, Identity | None]] = deque()
        made = diagnose_in_order(
            self._to_make(session, planned),
            self.asked,
            num_workers=self.num_workers,
            stop=self.stop,
            progress=self.progress,
            announce=self.announce,
        )
        for diagnosis in made:
            yield from self._known_first(planned)
            entry, _ = planned.popleft()
            yield Made(entry=entry, diagnosis=diagnosis)
        yield from self._known_first(planned)

    def _to_make(self, session: Session, planned: deque[tuple[Entry, Identity | None]]) -> Iterator[Entry]:
        """The entries without a finished record; all are noted in `planned`, the known ones with their identity."""
        for entry in self.entries:
            if self.stop():
                return
            identity = self._finished(session, entry)
            planned.append((entry, identity))
            if identity is None:
                yield entry

    def _known_first(self, planned: deque[tuple[Entry, Identity | None]]) -> Iterator[Made]:
        """The known records that stand in front of the next one to be made."""
        while planned and planned[0][1] is not None:
            entry, identity = planned.popleft()
            assert identity is not None
            yield Made(entry=entry, diagnosis=self._record(entry, identity), reused=True)

    def _finished(self, session: Session, entry: Entry) -> Identity | None:
        """What the entry's finished record is known by; None where there is none, or nobody can open the checkpoint."""
        from samdiag import __version__

        if self.ledger is None or not len(self.ledger):
            return None
        try:
            identity = session.identify(entry)
        except SamdiagError:  # its record will say so
            return None
        return identity if self.ledger.has(entry.path, identity, __version__) else None

    def _record(self, entry: Entry, identity: Identity) -> Diagnosis:
        from samdiag import __version__

        assert self.ledger is not None
        found = self.ledger.done(entry.path, identity, __version__)
        assert found is not None
        return found

    def _telling(self, entry: Entry) -> Callable[[str, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda what, count: progress(entry, what, count)
