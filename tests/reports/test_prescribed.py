"""The report's part on what to change: the schedule, the other ways, what is missing, and the learning rate."""

from __future__ import annotations

import dataclasses

import pytest

from samdiag.remedies import Phase, Schedule
from samdiag.reports import text
from samdiag.reports.digest import digest
from samdiag.reports.prescribed import schedule_row
from samdiag.reports.rows import Change

from .samples import HOSTILE, diagnosis, prescription

WAY = Schedule(
    kind="sgd-then-sam",
    phases=(Phase(steps=137, rho=0.0), Phase(steps=None, rho=0.1, lr=0.2, momentum=0.5, batch_size=64)),
    effect="plain steps leave in about 91",
    risk="caught again",
    source="docs/theory.md D4",
    steps=91.0,
)


def one(**changes: object):  # type: ignore[no-untyped-def]
    return diagnosis(prescription=prescription(**changes))


def test_the_phases_are_in_words() -> None:
    assert schedule_row(WAY).phases == (
        "137 steps without SAM (rho 0)",
        "from then on at rho 0.1, lr 0.2, momentum 0.5, batches of 64",
    )
    decay = dataclasses.replace(WAY, phases=(Phase(steps=1200, rho=0.5, rho_end=0.05, micro_batch=8),))
    assert schedule_row(decay).phases == ("1200 steps with rho from 0.5 to 0.05, ascent micro-batches of 8",)


def test_the_schedule_stands_with_its_effect_and_risk_before_the_reasons() -> None:
    shown = " ".join(text.render(one(schedule=WAY), width=120, color=False).split())
    wanted = "do plain steps, then SAM: 137 steps without SAM (rho 0); from then on at rho 0.1"
    assert wanted in shown
    assert shown.index(wanted) < shown.index("plain steps leave in about 91 (docs/theory.md D4)")
    assert shown.index("risk: caught again") < shown.index("Why")


def test_other_ways_are_named_as_such_once() -> None:
    other = dataclasses.replace(WAY, kind="micro-batch")
    report = digest(one(schedule=WAY, alternatives=(other, other)))
    assert [row.kind for row in report.alternatives] == ["ascent micro-batches"] * 2
    lines = text.render(one(schedule=WAY, alternatives=(other, other)), width=120, color=False).split("\n")
    assert sum(line.startswith("  or ") for line in lines) == 1


def test_what_is_missing_is_listed() -> None:
    shown = text.render(one(missing=("the learning rate: give --lr",)), width=120, color=False)
    assert "missing" in shown
    assert "the learning rate: give --lr" in shown


def test_a_learning_rate_has_a_row_only_where_it_changes() -> None:
    lower = dataclasses.replace(prescription().rho, current=0.1, recommended=0.05)
    assert [row.name for row in digest(one()).prescription] == ["rho", "momentum", "batch size"]
    row = digest(one(lr=lower)).prescription[-1]
    assert (row.name, row.change, row.current, row.recommended) == ("lr", Change.SET, "0.1", "0.05")


@pytest.mark.parametrize("hidden", HOSTILE)
def test_hostile_text_is_harmless(hidden: str) -> None:
    dirty = dataclasses.replace(WAY, kind=hidden, effect=hidden, risk=hidden, source=hidden)
    shown = text.render(one(schedule=dirty, alternatives=(dirty,), missing=(hidden,)), color=False)
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e\u2028\udcff")
