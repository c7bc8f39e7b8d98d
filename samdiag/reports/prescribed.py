"""Prescription → rows: what to set, the schedule that carries it out, the other ways, and what is missing."""

from __future__ import annotations

import math
from dataclasses import replace

from samdiag.remedies import Advice, Phase, Prescription, Schedule
from samdiag.reports.escape import printable
from samdiag.reports.numbers import count, interval, number
from samdiag.reports.rows import Change, PrescriptionRow, ScheduleRow
from samdiag.types import Measurements

KIND_WORDS = {
    "constant": "other settings",
    "sgd-then-sam": "plain steps, then SAM",
    "rho-warm-up": "a small rho first",
    "rho-decay": "decay of rho",
    "micro-batch": "ascent micro-batches",
    "lower-lr": "lower learning rate",
}


def advice_rows(prescription: Prescription | None, m: Measurements | None) -> tuple[PrescriptionRow, ...]:
    """One row per hyper-parameter; the learning rate has one only where it has to change."""
    if prescription is None:
        return ()
    unsaid = "full batch" if m and m.batch_size is None else "unknown"
    rows = [
        _advice_row("rho", prescription.rho),
        _advice_row("momentum", prescription.momentum),
        _batch_row(prescription.batch_size, m, unsaid),
    ]
    if prescription.lr is not None:
        rows.append(_advice_row("lr", prescription.lr))
    return tuple(rows)


def _batch_row(advice: Advice, m: Measurements | None, unsaid: str) -> PrescriptionRow:
    """The batch size; where nobody says one, the number of samples that a full batch has is marked as what it is."""
    row = _advice_row("batch size", advice, unsaid=unsaid)
    assumed = m is not None and m.batch_size is None and m.micro_batch is None
    if row.change is Change.KEEP and assumed:
        whole = f"full batch ({row.current} samples; none was said)"
        return replace(row, current=whole, recommended=whole)
    return row


def _advice_row(name: str, advice: Advice, *, unsaid: str = "unknown") -> PrescriptionRow:
    current, recommended = exact(advice.current), exact(advice.recommended)
    if advice.recommended is None:
        change = Change.NONE
    else:
        change = Change.KEEP if advice.current is not None and recommended == current else Change.SET
    return PrescriptionRow(
        name=name,
        change=change,
        current=current or unsaid,
        recommended=recommended,
        interval=interval(advice.interval),
        binding=printable(advice.binding or ""),
        reason=printable(advice.reason),
        source=printable(advice.source),
    )


def exact(value: float | None) -> str:
    """A hyper-parameter as one would type it: whole numbers in full, others to four digits; empty for None."""
    if value is None:
        return ""
    return number(int(value)) if abs(value) < 1e9 and value == int(value) else number(value)


def notes(prescription: Prescription | None) -> tuple[str, ...]:
    """The prescription's remarks, the predicted time to leave a saddle first."""
    if prescription is None:
        return ()
    found = [printable(note) for note in prescription.notes]
    if prescription.escape_steps is not None:
        steps = prescription.escape_steps
        took = f"about {count(math.ceil(steps))} steps" if math.isfinite(steps) else "no finite number of steps"
        found.insert(0, f"Predicted with these settings: {took} to leave the saddle.")
    return tuple(found)


def schedule_row(schedule: Schedule) -> ScheduleRow:
    """The phases in words, with what is expected of them and what can go wrong."""
    return ScheduleRow(
        kind=printable(KIND_WORDS.get(schedule.kind, schedule.kind)),
        phases=tuple(_phase_words(phase) for phase in schedule.phases),
        effect=printable(schedule.effect),
        risk=printable(schedule.risk),
        source=printable(schedule.source),
    )


def _phase_words(phase: Phase) -> str:
    """`240 steps at rho 0.0134 with momentum 0.94`; the last phase is "then …"."""
    radius = "without SAM (rho 0)" if phase.rho == 0 else f"at rho {exact(phase.rho)}"
    if phase.rho_end is not None:
        radius = f"with rho from {exact(phase.rho)} to {exact(phase.rho_end)}"
    changed = {"lr": phase.lr, "momentum": phase.momentum, "batches of": phase.batch_size}
    also = [f"{name} {exact(value)}" for name, value in changed.items() if value is not None]
    also += [f"ascent micro-batches of {phase.micro_batch}"] if phase.micro_batch is not None else []
    steps = f"{count(phase.steps)} steps" if phase.steps is not None else "from then on"
    return ", ".join([f"{steps} {radius}", *also])
