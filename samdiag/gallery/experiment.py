"""An experiment of the papers that runs here: what they published, what theory expects, and what was measured now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from samdiag.types import Diagnosis


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of an experiment.

    Attributes:
        quantity: what it is, with its unit or setting.
        published: what the paper says; empty where it gives no number.
        expected: what theory (docs/theory.md) or an exact computation says.
        measured: what this run found.
        agrees: whether measured and expected agree within `tolerance`; None where there is nothing to hold it to.
        tolerance: in words, e.g. "± 2 %" or "± 2 standard errors".
    """

    quantity: str
    published: str = ""
    expected: str = ""
    measured: str
    agrees: bool | None = None
    tolerance: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an experiment leaves behind.

    Attributes:
        rows: the numbers, in reading order.
        pictures: files written.
        checkpoints: stamped files that `samdiag inspect` takes without further words.
        remarks: what a reader should know, a sentence each.
        diagnoses: of checkpoints whose whole report the command prints as well.
    """

    rows: tuple[Row, ...]
    pictures: tuple[Path, ...] = ()
    checkpoints: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()


Tell = Callable[[str], None]  # one line of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An entry of `samdiag demo`.

    Attributes:
        name: as typed.
        title: one line, for the list.
        source: paper, section, and the section of docs/theory.md.
        run: (folder for pictures and checkpoints, seed, progress) → outcome.
    """

    name: str
    title: str
    source: str
    run: Callable[[Path, int, Tell], Outcome]
