"""The plain rows that every medium renders: texts are final and harmless, numbers are already formatted.

Every text that may come from a checkpoint has passed `escape.printable`; a medium only adds its own escaping (Rich
markup, HTML, …).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from samdiag.reports.numbers import number
from samdiag.types import Confidence, Severity, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRow:
    """One measured number: `label  value error  note`; `sampling_unknown` asks for the footnote about it."""

    label: str
    value: str
    error: str = ""
    note: str = ""
    sampling_unknown: bool = False


class Change(StrEnum):
    """What a prescription asks for."""

    SET = "set"
    KEEP = "keep"
    NONE = "no recommendation"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrescriptionRow:
    """One hyper-parameter: from → to, the allowed interval, the constraint that binds, why, and who says so."""

    name: str
    change: Change
    current: str
    recommended: str
    interval: str
    binding: str
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """One way to carry the prescription out: its phases in order, what it is predicted to do, and its risk."""

    kind: str
    phases: tuple[str, ...]
    effect: str
    risk: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """One finding in words; `numbers` are its evidence as (name, value text) pairs."""

    verdict: str
    headline: str
    severity: Severity
    confidence: Confidence
    message: str
    numbers: tuple[tuple[str, str], ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """A resolved setting: name, value, who said it, how far that is trusted, what it overruled."""

    name: str
    value: str
    source: str
    trust: Trust | None = None  # None: read off the measurement, said by nobody
    overruled: tuple[tuple[str, str], ...] = ()  # (value, source), nearest first


class MarkKind(StrEnum):
    """What a mark on the spectrum line stands for."""

    BOTTOM = "bottom"
    INNER = "inner"
    THRESHOLD = "threshold"
    ZERO = "zero"
    TOP = "top"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumMark:
    """A place on the spectrum line: value ± spread, with the label that goes with it."""

    kind: MarkKind
    value: float
    spread: float = 0.0
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumModel:
    """The two ends of the Hessian's spectrum on one axis through zero.

    Attributes:
        marks: from left to right.
        linear_within: None on a linear axis; on a symmetric-log axis the magnitude below which it is nearly linear.
        notes: what cannot be drawn, such as a threshold beyond the axis.
    """

    marks: tuple[SpectrumMark, ...]
    linear_within: float | None
    notes: tuple[str, ...] = ()

    @property
    def scale(self) -> str:
        """The axis in words."""
        if self.linear_within is None:
            return "linear scale"
        return f"symlog scale, near linear within ±{number(self.linear_within, digits=2)}"

    def mark(self, kind: MarkKind) -> SpectrumMark | None:
        """The first mark of `kind`."""
        return next((mark for mark in self.marks if mark.kind is kind), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedRow:
    """One continuation of the dynamics probe: its setting, and what the loss and the gradient did."""

    name: str
    setting: str
    loss: str
    grad_norm: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """A prediction beside what was seen; `mark` is ✔, ✖ or ?."""

    mark: str
    what: str
    predicted: str
    observed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedModel:
    """The dynamics probe: its runs, the comparisons, how it was run, and what to know about it."""

    runs: tuple[TriedRow, ...]
    comparisons: tuple[ComparedRow, ...]
    remark: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """Why there is no diagnosis."""

    what: str
    todo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestedReport:
    """Everything a report shows, in the order of importance."""

    subject: str
    subject_details: tuple[str, ...]
    verdict: str
    headline: str
    meaning: str
    severity: Severity
    confidence: Confidence | None
    prescription: tuple[PrescriptionRow, ...]
    prescription_notes: tuple[str, ...]
    findings: tuple[FindingRow, ...]
    evidence: tuple[EvidenceRow, ...]
    spectrum: SpectrumModel | None
    settings: tuple[SettingRow, ...]
    warnings: tuple[str, ...]
    footnotes: tuple[str, ...]
    footer: tuple[str, ...]
    failure: FailureRow | None
    tried: TriedModel | None = None
    schedule: ScheduleRow | None = None
    alternatives: tuple[ScheduleRow, ...] = ()
    missing: tuple[str, ...] = ()
