"""The log of a treatment: JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from samdiag.encoding import jsonable
from samdiag.quoting import shown
from samdiag.treatment import Round, State, Treatment

LAST_LINE = ("outcome", "reason", "after", "recipe", "improved", "safe", "num_samples", "notes", "written", "failure")


def round_line(entry: Round) -> dict[str, Any]:
    """A round as one flat object; a phase says only what it sets."""
    phases = [{key: value for key, value in jsonable(phase).items() if value is not None} for phase in entry.phases]
    return {
        "event": "round",
        "round": entry.number,
        "verdict": entry.before.verdict,
        "confidence": entry.before.confidence,
        "grad_norm": entry.before.grad_norm,
        "lambda_min": entry.before.lambda_min,
        "lambda_max": entry.before.lambda_max,
        "before": entry.start,
        "kind": entry.kind,
        "applied": phases,
        "steps": entry.steps,
        "loss_before": entry.before.loss,
        "loss_after": entry.loss_after,
        "verdict_after": entry.verdict_after,
        "diverged": entry.diverged,
        "note": entry.note,
        "seconds": entry.seconds,
    }


class Log:
    """JSON Lines, one a round between a first and a last one; the file is made when there is something to say.

    Where it cannot be written the treatment goes on, and says so in the end.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, opening: Callable[[State], Mapping[str, Any]]) -> None:
        self.path, self._opening = path, opening
        self._file: TextIO | None = None
        self._trouble = ""

    def write(self, seen: State | Round) -> None:
        """The first line for a State, one of its own for a Round."""
        self._put(self._opening(seen) if isinstance(seen, State) else round_line(seen))

    def close(self, found: Treatment) -> Treatment:
        """The last line, and the treatment with the log's name or why there is none."""
        if self._file is None:
            return self._said(found)
        found = replace(found, written=replace(found.written, log=str(self.path)))
        said = found.to_dict()
        self._put({"event": "end", **{key: said[key] for key in LAST_LINE}})
        try:
            self._file.close()
        except OSError as error:
            self._trouble = error.strerror or str(error)
        return self._said(found)

    def _put(self, line: Mapping[str, Any]) -> None:
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.write(json.dumps(jsonable(line), allow_nan=False, ensure_ascii=True) + "\n")
            self._file.flush()
        except OSError as error:
            self._trouble = error.strerror or str(error)

    def _opened(self) -> TextIO:
        """A new file, under the next free name where another treatment was faster."""
        asked, number = self.path, 1
        while True:
            try:
                return self.path.open("x", encoding="utf-8")
            except FileExistsError:
                number += 1
                self.path = asked.with_name(f"{asked.stem}-{number}{asked.suffix}")

    def _said(self, found: Treatment) -> Treatment:
        if not self._trouble:
            return found
        return replace(found, notes=(*found.notes, f"the log {shown(self.path)} is not complete: {self._trouble}"))
