"""What a gate makes of a diagnosis: plain values between `gates` and the reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from samdiag.types import Diagnosis, Severity


class HitKind(StrEnum):
    """What a gate can fail on."""

    FINDING = "finding"  # of --fail-on
    REQUIREMENT = "requirement"  # of --require
    SPEC = "spec"  # of --strict-spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One reason why a checkpoint fails the gate, or leaves it open.

    Attributes:
        kind: what it fails on.
        name: the verdict, the requirement as written, or the setting.
        severity: of the finding; error for the others.
        message: one line with the numbers.
    """

    kind: HitKind
    name: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One checkpoint and what the gate makes of it.

    Attributes:
        diagnosis: what was found.
        exit_code: what it contributes: 0, 1 (hits), 2 (usage) or 3 (a failure, `undecided`, or gaps).
        hits: what fails the gate.
        gaps: what the gate asks and the measurement leaves open: a requirement inside the error bars.
        accepted: findings that the gate names and the baseline has already, no worse now.
    """

    diagnosis: Diagnosis
    exit_code: int
    hits: tuple[Hit, ...] = ()
    gaps: tuple[Hit, ...] = ()
    accepted: tuple[Hit, ...] = ()
