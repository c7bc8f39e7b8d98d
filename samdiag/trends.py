"""What became of a run over its checkpoints: one row each, and where a number or the verdict changed. Plain values.

A number has changed between two neighbours where their intervals do not touch, as in `comparing`. Neighbours measured
on the same samples share their sampling error: more may have changed than is said.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from samdiag.comparing import differing_settings, has_changed, has_error_bars, interval, seed_of
from samdiag.encoding import jsonable
from samdiag.errors import UsageError
from samdiag.formats.steps import natural, run_folder
from samdiag.quantities import NAMES, quantity
from samdiag.quoting import listed, quoted
from samdiag.suggesting import did_you_mean
from samdiag.types import Diagnosis

FORMAT_VERSION = 1
USUAL = ("loss", "gradient_ratio", "lambda_max", "lambda_min")
FAILED = "failed"


class Move(StrEnum):
    """Where a number went from one checkpoint to the next, or over a run; beyond both error bars or not at all."""

    UP = "up"
    DOWN = "down"
    SAME = "same"
    SWINGS = "swings"  # over a run: up and down again
    UNKNOWN = "unknown"  # measured at fewer than two checkpoints, or without error bars


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number at one checkpoint, of all seeds together.

    Attributes:
        value: of several seeds their mean.
        low, high: the ends of its 95 % interval; of several seeds the lowest and highest end of theirs.
        least, most: the values of the seeds that lie furthest apart.
        num_seeds: how many seeds measured it.
        barred: whether it has error bars that say all; without them nothing is said to have changed.
        move: from the checkpoint before it at which the number was measured.
    """

    value: float
    low: float
    high: float
    least: float
    most: float
    num_seeds: int = 1
    barred: bool = True
    move: Move = Move.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One checkpoint.

    Attributes:
        path, step: of the checkpoint.
        seeds: those it was measured with, in order.
        verdicts: verdict → the seeds that gave it; "failed" where there is no diagnosis.
        readings: quantity → its reading; what was not measured is absent.
        verdict_changed: whether the verdicts are others than at the checkpoint before.
        failures: why there is no diagnosis, one line each.
    """

    path: str
    step: int | None
    seeds: tuple[Any, ...]
    verdicts: Mapping[str, tuple[Any, ...]]
    readings: Mapping[str, Reading]
    verdict_changed: bool = False
    failures: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The verdict; several where the seeds differ."""
        return " | ".join(self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One number over a run.

    Attributes:
        name: the quantity.
        move: from the first checkpoint to the last at which it was measured, or SWINGS.
        ups, downs: how many neighbours differ beyond both error bars, and which way.
    """

    name: str
    move: Move
    ups: int
    downs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrend:
    """One run: its checkpoints in order of their step, and each number over all of them.

    Attributes:
        run: the folder that its checkpoints lie in.
        rows: in order.
        series: in the order asked for.
        notes: what to know before comparing, one line each.
    """

    run: str
    rows: tuple[Row, ...]
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Every run, in natural order of their folders."""

    runs: tuple[RunTrend, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `samdiag trend --format json`."""
        return {"format_version": FORMAT_VERSION, "runs": [jsonable(run) for run in self.runs]}


def trend_of(diagnoses: Iterable[Diagnosis], names: Sequence[str] = USUAL) -> Trend:
    """The trend of every run among the diagnoses; a run is the folder that its checkpoints lie in.

    Of several diagnoses of one checkpoint and seed the last counts, and a note says so.

    Raises:
        UsageError: a name is of no quantity.
    """
    check_names(names)
    runs: dict[str, list[Diagnosis]] = {}
    for diagnosis in diagnoses:
        path = diagnosis.checkpoint.path if diagnosis.checkpoint else ""
        runs.setdefault(run_folder(path), []).append(diagnosis)
    return Trend(runs=tuple(_run(run, runs[run], tuple(dict.fromkeys(names))) for run in sorted(runs, key=natural)))


def check_names(names: Iterable[str]) -> None:
    """Nothing, or UsageError where a name is of no quantity."""
    for name in names:
        if name not in NAMES:
            what = f"no quantity is called {quoted(name)}{did_you_mean(name, NAMES)}"
            raise UsageError(what, f"one of: {', '.join(NAMES)}")


def _run(run: str, diagnoses: Sequence[Diagnosis], names: Sequence[str]) -> RunTrend:
    kept, notes = _latest(diagnoses)
    different = differing_settings([d for group in kept for d in group if d.settings])
    different.pop("measure.seed", None)
    for name, values in different.items():
        notes.append(f"{name} differs ({listed(map(_word, values))}): the numbers are not comparable throughout")
    rows = _with_moves([_row(group, names) for group in kept], names)
    notes += [_disagreement(row) for row in rows if len(row.verdicts) > 1]
    return RunTrend(run=run, rows=rows, series=tuple(_series(name, rows) for name in names), notes=tuple(notes))


def _word(value: object) -> str:
    return value if isinstance(value, str) else quoted(value)


def _latest(diagnoses: Sequence[Diagnosis]) -> tuple[list[list[Diagnosis]], list[str]]:
    """The diagnoses by checkpoint, each list by seed, in order of step; as recorded where no step is known."""
    found: dict[str, dict[Any, Diagnosis]] = {}
    replaced = []
    for diagnosis in diagnoses:
        path = diagnosis.checkpoint.path if diagnosis.checkpoint else ""
        seeds = found.setdefault(path, {})
        seed = seed_of(diagnosis)
        if seed is not None:
            if seed in seeds:
                replaced.append(path)
            seeds.pop(None, None)  # a failure before the settings were known, tried again since
        seeds[seed] = diagnosis
    groups = [list(seeds.values()) for seeds in found.values()]
    if any(_step(group) is not None for group in groups):
        groups.sort(key=_place)
    notes = (
        [f"recorded more than once, of which the last counts: {listed(dict.fromkeys(replaced))}"] if replaced else []
    )
    return groups, notes


def _step(group: Sequence[Diagnosis]) -> int | None:
    return next((d.checkpoint.step for d in group if d.checkpoint is not None and d.checkpoint.step is not None), None)


def _place(group: Sequence[Diagnosis]) -> tuple[bool, int, Any]:
    step, first = _step(group), group[0].checkpoint
    return (step is None, step or 0, natural(first.path if first else ""))


def _row(group: Sequence[Diagnosis], names: Sequence[str]) -> Row:
    verdicts: dict[str, tuple[Any, ...]] = {}
    for diagnosis in group:
        verdict = FAILED if diagnosis.failure is not None else diagnosis.verdict
        verdicts[verdict] = (*verdicts.get(verdict, ()), seed_of(diagnosis))
    first = group[0].checkpoint
    return Row(
        path=first.path if first else "",
        step=_step(group),
        seeds=tuple(seed_of(diagnosis) for diagnosis in group),
        verdicts=verdicts,
        readings={name: found for name in names if (found := _reading(group, name)) is not None},
        failures=tuple(dict.fromkeys(d.failure.what for d in group if d.failure is not None)),
    )


def _reading(group: Sequence[Diagnosis], name: str) -> Reading | None:
    """What all seeds say of a number; None where none measured it."""
    found = [interval(one) for diagnosis in group if (one := quantity(diagnosis, name)) is not None]
    if not found:
        return None
    values, lows, highs = zip(*found, strict=True)
    mean = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else values[0]
    return Reading(
        value=mean,
        low=min(lows),
        high=max(highs),
        least=min(values),
        most=max(values),
        num_seeds=len(values),
        barred=all(has_error_bars(diagnosis, name) for diagnosis in group if quantity(diagnosis, name) is not None),
    )


def _with_moves(rows: Sequence[Row], names: Sequence[str]) -> tuple[Row, ...]:
    """The rows with what changed from one to the next; a row that lacks a number is passed over for it."""
    last: dict[str, Reading] = {}
    moved: list[Row] = []
    verdicts: set[str] | None = None
    for row in rows:
        readings = {}
        for name, reading in row.readings.items():
            before = last.get(name)
            move = Move.UNKNOWN if before is None else _move(before, reading)
            last[name] = readings[name] = dataclasses.replace(reading, move=move)
        own = set(row.verdicts) - {FAILED}
        changed = bool(own) and verdicts is not None and own != verdicts
        verdicts = own or verdicts
        moved.append(dataclasses.replace(row, readings=readings, verdict_changed=changed))
    return tuple(moved)


def _move(before: Reading, after: Reading) -> Move:
    if not (before.barred and after.barred):
        return Move.UNKNOWN
    if not has_changed((before.value, before.low, before.high), (after.value, after.low, after.high)):
        return Move.SAME
    return Move.UP if after.value > before.value else Move.DOWN


def _series(name: str, rows: Sequence[Row]) -> Series:
    found = [row.readings[name] for row in rows if name in row.readings]
    moves = [reading.move for reading in found]
    ups, downs = moves.count(Move.UP), moves.count(Move.DOWN)
    if len(found) < 2:
        return Series(name=name, move=Move.UNKNOWN, ups=0, downs=0)
    whole = _move(found[0], found[-1])
    return Series(name=name, move=Move.SWINGS if whole is Move.SAME and ups and downs else whole, ups=ups, downs=downs)


def _disagreement(row: Row) -> str:
    said = "; ".join(f"{verdict} (seed {', '.join(map(str, seeds))})" for verdict, seeds in row.verdicts.items())
    where = f"step {row.step}" if row.step is not None else row.path
    return f"{where}: the seeds disagree: {said}"
