"""`--baseline`: what was known of each checkpoint when the baseline was written, as values."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path, PurePath
from typing import Any

from samdiag.gates.harm import harm
from samdiag.gates.requiring import Answer, Truth, answers
from samdiag.requirements import Requirement
from samdiag.types import Diagnosis, Severity

DIGITS = 6  # of a value in the file; `harm.REPRODUCIBLE` covers the rest
ERROR_DIGITS = 2  # of an error, rounded up
# what a number is a measurement *of*; seeds, samples, devices and tolerances only change how well it is measured
COMPARED = ("problem", "model", "data", "loss", "weights", "measure.mode")
LOCAL = frozenset({"root", "num_samples"})  # of [data]: where this machine keeps it, and how much of it is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNumber:
    """A number that says how bad something was.

    Attributes:
        name: the measurement.
        value: None where it was not measured.
        error: how far beyond the value it may lie on the worse side (about 95 %).
    """

    name: str
    value: float | None
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFinding:
    """A finding as it was; `number` is None for a verdict without degrees."""

    severity: Severity
    number: KnownNumber | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One checkpoint as it was.

    Attributes:
        verdict: the first finding.
        settings: what the numbers depend on, by dotted name.
        findings: by verdict, without those that a test of the run contradicted.
        requirements: the conditions that were asked for and broken for certain, as `str(Condition)`.
    """

    verdict: str
    settings: Mapping[str, Any]
    findings: Mapping[str, KnownFinding]
    requirements: Mapping[str, KnownNumber] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Every checkpoint that is known.

    Attributes:
        folder: the baseline file's own, absolute; keys inside it are relative to it.
        checkpoints: by `key`.
    """

    folder: Path
    checkpoints: Mapping[str, Known] = field(default_factory=dict)

    def key(self, path: str, seed: int | None) -> str:
        """What a checkpoint is known by: its path relative to `folder` where it lies inside, else as given, with `/`;
        `#seed=N` where several seeds are asked for.
        """
        where = PurePath(_inside(path, self.folder) or path).as_posix()
        return where if seed is None else f"{where}#seed={seed}"

    def known(self, diagnosis: Diagnosis, seed: int | None) -> Known | None:
        """The checkpoint as it was; None where it is not known."""
        path = diagnosis.checkpoint.path if diagnosis.checkpoint else ""
        return self.checkpoints.get(self.key(path, seed))

    def noted(
        self, diagnosis: Diagnosis, requirements: Sequence[Requirement], *, seed: int | None = None
    ) -> dict[str, Known]:
        """What a new baseline would say of one checkpoint, by its key; nothing of one that failed."""
        if diagnosis.failure is not None or diagnosis.checkpoint is None:
            return {}
        return {self.key(diagnosis.checkpoint.path, seed): known_of(diagnosis, requirements)}

    def merged(self, notes: Mapping[str, Known]) -> Baseline:
        """With these checkpoints as they are now, and all others as they were."""
        return replace(self, checkpoints={**self.checkpoints, **notes})


def known_of(diagnosis: Diagnosis, requirements: Sequence[Requirement]) -> Known:
    """What a baseline keeps of a diagnosis."""
    findings = {
        finding.verdict: KnownFinding(severity=finding.severity, number=number_of(diagnosis, finding.verdict))
        for finding in diagnosis.findings
        if not finding.contradicted
    }
    asked = [answer for requirement in requirements for answer in answers(diagnosis, requirement)]
    return Known(
        verdict=diagnosis.verdict,
        settings=compared(diagnosis),
        findings=findings,
        requirements={
            str(answer.condition): required_number(answer)
            for answer in asked
            if answer.truth is Truth.FALSE and answer.reading.value is not None
        },
    )


def number_of(diagnosis: Diagnosis, verdict: str) -> KnownNumber | None:
    """How bad a finding is, as the file says it."""
    level = harm(diagnosis, verdict)
    return None if level is None else KnownNumber(name=level.name, value=_short(level.value), error=_up(level.error))


def required_number(answer: Answer) -> KnownNumber:
    """The number behind a condition; its error in the direction that breaks it, for `==` and `!=` the larger one."""
    reading = answer.reading
    assert reading.value is not None
    above, below = reading.high - reading.value, reading.value - reading.low
    error = {"<": above, ">": below}.get(answer.condition.operator[0], max(above, below))
    return KnownNumber(name=reading.name, value=_short(reading.value), error=_up(error))


def compared(diagnosis: Diagnosis) -> dict[str, Any]:
    """The settings that the numbers depend on, as JSON values, without what was not said or is samdiag's default."""
    from samdiag.encoding import jsonable
    from samdiag.spec.merging import DEFAULTS

    found = {
        name: jsonable(setting.value)
        for name, setting in sorted(diagnosis.settings.items())
        if setting.value != DEFAULTS.get(name) and (name in COMPARED or name.startswith("sam."))
    }
    data = found.get("data")
    if isinstance(data, dict):
        found["data"] = {key: value for key, value in data.items() if key not in LOCAL}
    return found


def _short(value: float | None) -> float | None:
    return value if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def _up(error: float) -> float:
    """`error` to a few digits, never smaller than it is."""
    if math.isnan(error):
        return math.inf
    if not math.isfinite(error) or error == 0:
        return error
    return float(Context(prec=ERROR_DIGITS, rounding=ROUND_CEILING).create_decimal(Decimal(error)))


def _inside(path: str, folder: Path) -> str | None:
    """`path` relative to `folder` where it lies in it, by name or once links are followed."""
    for form in (os.path.abspath, os.path.realpath):
        where, root = form(path), form(folder)
        if where.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(where, root)
    return None
