"""What a finding or a broken requirement is against the baseline: new, worse, or known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from samdiag.gates.baseline import Known, KnownNumber, compared
from samdiag.gates.harm import Level, harm, is_worse
from samdiag.gates.requiring import Answer
from samdiag.quoting import quoted
from samdiag.reports.numbers import estimate_line, number
from samdiag.types import Diagnosis, Estimate, Finding, Severity

HARSHNESS = (Severity.INFO, Severity.WARNING, Severity.ERROR)


class Change(StrEnum):
    """What became of something since the baseline was written."""

    NEW = "new"  # it was not there, or the settings are not the same
    WORSE = "worse"
    KNOWN = "known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A change and the words for it, on one line."""

    change: Change
    text: str


def compare_finding(diagnosis: Diagnosis, finding: Finding, known: Known | None) -> Comparison:
    """A finding against the checkpoint as it was.

    Worse is a graver severity, or a number that got worse by more than both error bounds.
    """
    fresh = _not_comparable(diagnosis, known)
    if known is None or fresh is not None:
        return fresh or _new("this checkpoint is not in the baseline")
    before = known.findings.get(finding.verdict)
    if before is None:
        return _new(f"the baseline has {known.verdict} here, not {finding.verdict}")
    if HARSHNESS.index(finding.severity) > HARSHNESS.index(before.severity):
        text = f"worse than in the baseline: {finding.severity}, it was {before.severity} there"
        return Comparison(change=Change.WORSE, text=text)
    return _by_number(harm(diagnosis, finding.verdict), before.number)


def compare_answer(diagnosis: Diagnosis, answer: Answer, known: Known | None) -> Comparison:
    """A condition that is not kept for certain against the checkpoint as it was: known where it was broken then."""
    fresh = _not_comparable(diagnosis, known)
    if known is None or fresh is not None:
        return fresh or _new("this checkpoint is not in the baseline")
    before = known.requirements.get(str(answer.condition))
    if before is None:
        return _new("the baseline does not break it")
    return _by_number(_further_off(answer), _off(answer, before))


def changed_settings(diagnosis: Diagnosis, known: Known) -> list[str]:
    """Every setting that makes the numbers incomparable: `sam.rho 0.05 → 0.1`."""
    then, now = dict(known.settings), compared(diagnosis)
    return [
        f"{name} {_word(then, name)} → {_word(now, name)}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _word(settings: Mapping[str, Any], name: str) -> str:
    return quoted(settings[name]) if name in settings else "not said"


def _not_comparable(diagnosis: Diagnosis, known: Known | None) -> Comparison | None:
    changes = changed_settings(diagnosis, known) if known is not None else []
    if not changes:
        return None
    return _new(f"not comparable with the baseline, whose settings were others: {', '.join(changes)}")


def _new(why: str) -> Comparison:
    return Comparison(change=Change.NEW, text=f"new: {why}")


def _by_number(now: Level | None, before: KnownNumber | None) -> Comparison:
    if now is None or before is None or now.value is None or before.value is None or now.name != before.name:
        return Comparison(change=Change.KNOWN, text="in the baseline")
    against = f"{now.name} {_line(now.value, now.doubt)} against {_line(before.value, before.error)}"
    if is_worse(now, before.value, before.error):
        return Comparison(change=Change.WORSE, text=f"worse than in the baseline: {against}")
    return Comparison(change=Change.KNOWN, text=f"in the baseline, and no worse: {against}")


def _line(value: float, error: float) -> str:
    return number(value) if error == 0 else estimate_line(Estimate(value=value, error=error))


def _further_off(answer: Answer) -> Level:
    """The number behind a condition, with the direction that breaks it; of `==` the distance from the threshold.

    `!=` has no degrees: what is broken or open has the threshold in its interval, which is then never worse.
    """
    reading, operator, threshold = answer.reading, answer.condition.operator, answer.condition.threshold
    if operator == "==" and reading.value is not None:
        error = max(reading.high - reading.value, reading.value - reading.low)
        away = abs(reading.value - threshold)
        return Level(name=reading.name, value=away, low=max(away - error, 0.0), high=away + error, worse=1)
    worse = 1 if operator[0] == "<" else -1
    return Level(name=reading.name, value=reading.value, low=reading.low, high=reading.high, worse=worse)


def _off(answer: Answer, before: KnownNumber) -> KnownNumber:
    """What the file says, made into the same distance."""
    if answer.condition.operator != "==" or before.value is None:
        return before
    return KnownNumber(name=before.name, value=abs(before.value - answer.condition.threshold), error=before.error)
