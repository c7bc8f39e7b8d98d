"""`--require`: whether a measurement keeps a requirement, breaks it, or leaves it open."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from samdiag.gates.readings import Reading, read
from samdiag.requirements import Condition, Requirement
from samdiag.types import Diagnosis


class Truth(Enum):
    """What can be said of a statement about a number that is known to within an interval."""

    TRUE = "true"
    FALSE = "false"
    OPEN = "open"  # the interval lies on both sides, or nothing was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a diagnosis says to one condition."""

    condition: Condition
    reading: Reading
    truth: Truth

    @property
    def message(self) -> str:
        """One line with the number, its error and the threshold, and what would decide where it is open."""
        reading, condition = self.reading, f"`{self.condition}`"
        known = reading.name if reading.value is None else f"{reading.name} ="
        outcome = {
            Truth.TRUE: f"keeps {condition}",
            Truth.FALSE: f"breaks {condition}",
            Truth.OPEN: f"leaves {condition} open",
        }[self.truth]
        said = f"{known} {reading.text}{', which' if reading.value is None else ''} {outcome}"
        return f"{said}; {reading.todo}" if self.truth is Truth.OPEN and reading.todo else said


def truth(operator: str, threshold: float, low: float, high: float) -> Truth:
    """Whether every number of [low, high] stands in the relation to `threshold`, none does, or only some do.

    Args:
        operator: of `requirements.OPERATORS`.
        threshold: may be infinite.
        low, high: low ≤ high; either may be infinite: where both are, nothing is known.
    """
    if low == -math.inf and high == math.inf:
        return Truth.OPEN  # also of `< inf`: what was not measured keeps no promise
    match operator:
        case "<":
            return _of(all_=high < threshold, none=low >= threshold)
        case "<=":
            return _of(all_=high <= threshold, none=low > threshold)
        case ">":
            return _of(all_=low > threshold, none=high <= threshold)
        case ">=":
            return _of(all_=low >= threshold, none=high < threshold)
        case "==":
            return _of(all_=low == high == threshold, none=not low <= threshold <= high)
        case "!=":
            return _of(all_=not low <= threshold <= high, none=low == high == threshold)
    raise AssertionError(operator)


def _of(*, all_: bool, none: bool) -> Truth:
    return Truth.TRUE if all_ else Truth.FALSE if none else Truth.OPEN


def all_of(truths: Iterable[Truth]) -> Truth:
    """Of statements joined by `and`: false where one is false, else open where one is open (Kleene)."""
    found = set(truths)
    return Truth.FALSE if Truth.FALSE in found else Truth.OPEN if Truth.OPEN in found else Truth.TRUE


def answers(diagnosis: Diagnosis, requirement: Requirement) -> tuple[Answer, ...]:
    """What a diagnosis says to each condition of a requirement, in order."""
    return tuple(_answer(diagnosis, condition) for condition in requirement.conditions)


def _answer(diagnosis: Diagnosis, condition: Condition) -> Answer:
    reading = read(diagnosis, condition.name)
    found = truth(condition.operator, condition.threshold, reading.low, reading.high)
    return Answer(condition=condition, reading=reading, truth=found)
