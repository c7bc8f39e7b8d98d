"""Records of a run kept on disk until its end, for the reports that speak of all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from samdiag.errors import CannotDecide
from samdiag.outcomes import Outcome

if TYPE_CHECKING:
    from samdiag.types import Diagnosis


class Spool:
    """A nameless file of records: ten thousand of them in memory would be half a gigabyte."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 (closed by `close`)

    def add(self, diagnosis: Diagnosis, seed: int | None) -> None:
        """One more record, and the seed of its entry.

        Raises:
            CannotDecide: the disk of temporary files is full.
        """
        from samdiag.reports.json_lines import render

        try:
            self._file.write(f"{'' if seed is None else seed}\t{render(diagnosis)}\n")
            self._file.flush()
        except OSError as error:
            what = f"a temporary file could not be written: {error.strerror or error}"
            raise CannotDecide(what, "make room there, or name another folder in TMPDIR") from error

    def outcomes(self, judge: Callable[[Diagnosis, int | None], Outcome]) -> Iterator[Outcome]:
        """Every record again, in order, and what the gate makes of it."""
        from samdiag.records import parse_record

        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if line.endswith("\n"):
                seed, _, text = line.partition("\t")
                yield judge(parse_record(text, f"record {number}"), int(seed) if seed else None)

    def close(self) -> None:
        """Gives the disk back."""
        self._file.close()
