"""One process, many checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from samdiag import pipeline
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.reading_ahead import ReadAhead
from samdiag.patience import Patience
from samdiag.preparing import Identity, identify
from samdiag.types import Diagnosis

if TYPE_CHECKING:
    from samdiag.spec.workshop import Workshop

Progress = Callable[[str, int], None]


class Session:
    """Diagnoses one checkpoint after the other in this process, with what they share kept between them.

    Use as a context; one thread at a time.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._workshop: Workshop | None = None
        self._ahead: ReadAhead | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        """Frees what was kept."""
        self._workshop = None
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def read_ahead(self, entry: Entry) -> None:
        """Has the files of a later entry read while the present one is measured."""
        self._ahead = self._ahead or ReadAhead()
        self._ahead.want(entry.path)

    def identify(self, entry: Entry) -> Identity:
        """What the diagnosis of `entry` would be known by; nothing is built or measured.

        Raises:
            SamdiagError: the checkpoint cannot be opened, or its settings cannot be resolved.
        """
        return identify(entry.path, **self._asked_of(entry))

    def inspect(
        self,
        entry: Entry,
        *,
        progress: Progress | None = None,
        patience: Patience | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> Diagnosis:
        """The diagnosis of one entry; an expected failure is part of it, never an exception.

        Raises:
            KeyboardInterrupt: passed on.
        """
        from samdiag.spec.workshop import Workshop

        self._workshop = self._workshop or Workshop()
        diagnosis = pipeline.inspect(
            entry.path,
            **self._asked_of(entry),
            progress=progress,
            announce=announce,
            patience=patience,
            workshop=self._workshop,
        )
        if diagnosis.failure is not None and "measure" in diagnosis.timings:
            self._workshop.clear()  # what failed in the middle may have left anything behind
        return diagnosis

    def _asked_of(self, entry: Entry) -> dict[str, Any]:
        """The arguments of `pipeline.inspect` and `identify` for one entry."""
        asked = {f.name: getattr(self.asked, f.name) for f in fields(self.asked)}
        if entry.seed is not None:
            asked["overrides"] = {**self.asked.overrides, "measure.seed": entry.seed}
        return asked
