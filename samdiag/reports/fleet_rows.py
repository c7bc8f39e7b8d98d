"""Outcomes → plain rows, one per checkpoint, the same for every medium that speaks of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from samdiag.errors import EXIT_FINDING, EXIT_OK, EXIT_UNDECIDED
from samdiag.outcomes import Hit, HitKind, Outcome
from samdiag.quantities import quantity
from samdiag.reports.digest import digest
from samdiag.reports.escape import printable
from samdiag.reports.numbers import NOT_MEASURED, estimate, number
from samdiag.reports.rows import DigestedReport
from samdiag.types import Diagnosis, Severity

NOT_EXAMINED = "not examined"  # in the place of a verdict, where there is a failure
NUMBERS: Mapping[str, str] = {
    "lambda_max": "λ_max",
    "lambda_min": "λ_min",
    "gradient_ratio": "‖g+‖/‖g‖",
}  # the numbers of a row: quantity → what it is called


class Mark(StrEnum):
    """What the gate makes of a checkpoint, in one character."""

    PASSED = "✔"
    NOTED = "▲"  # something is wrong with it that the gate does not ask for, or that its baseline accepts
    FAILED = "✖"
    OPEN = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberCell:
    """One measured number: what it is called, its value, its error as `± …` or nothing, and both in fewer digits."""

    label: str
    value: str
    error: str
    short: str

    @property
    def text(self) -> str:
        """Value and error."""
        return f"{self.value} {self.error}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class HitRow:
    """One thing the gate fails on, leaves open, or accepts."""

    name: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One checkpoint of many.

    Attributes:
        report: all that is known of it.
        path, step, verdict: printable; step "" where none is known.
        seed: "" where the record has none.
        mark: what the gate makes of it.
        exit_code: what it contributes.
        numbers: one cell for each of NUMBERS.
        hits, gaps, accepted: of the gate.
        reason: one line: why it was not examined, or what the finding behind the verdict says.
        todo: what to do where it was not examined, in lines; none where it was.
        seconds: that its diagnosis took.
        versions: (name, version) of samdiag and of what it ran on.
    """

    report: DigestedReport
    path: str
    step: str
    seed: str
    verdict: str
    mark: Mark
    exit_code: int
    numbers: tuple[NumberCell, ...]
    hits: tuple[HitRow, ...]
    gaps: tuple[HitRow, ...]
    accepted: tuple[HitRow, ...]
    reason: str
    todo: tuple[str, ...]
    seconds: float
    versions: tuple[tuple[str, str], ...]

    @property
    def why(self) -> tuple[str, ...]:
        """What has to be said beside the numbers, a line each: the hits, the gaps, and why nothing was decided."""
        lines = [f"{hit.name}: {hit.message}" for hit in self.hits]
        lines += [f"{gap.name}: left open: {gap.message}" for gap in self.gaps]
        return tuple(lines) if lines or self.mark is not Mark.OPEN else (self.reason,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A checkpoint on which seeds disagree: verdict → the seeds that say so."""

    path: str
    verdicts: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def text(self) -> str:
        """`minimum (seed 0, 2), descending (seed 1)`."""
        return ", ".join(f"{verdict} (seed {', '.join(seeds)})" for verdict, seeds in self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """All checkpoints of a run.

    Attributes:
        rows: in the order of the outcomes.
        verdicts: how many of each, the most frequent first; failures count as NOT_EXAMINED.
        disagreements: between seeds.
        missing: checkpoints that were asked for and not come to, because the run was interrupted.
    """

    rows: tuple[FleetRow, ...]
    verdicts: tuple[tuple[str, int], ...]
    disagreements: tuple[Disagreement, ...]
    missing: int = 0

    def marked(self, *marks: Mark) -> tuple[FleetRow, ...]:
        """The rows with one of these marks."""
        return tuple(row for row in self.rows if row.mark in marks)

    @property
    def worst_first(self) -> tuple[FleetRow, ...]:
        """What fails, then what is open, then what is noted, then the rest; each in its order."""
        order = (Mark.FAILED, Mark.OPEN, Mark.NOTED, Mark.PASSED)
        return tuple(sorted(self.rows, key=lambda row: order.index(row.mark)))

    @property
    def mark(self) -> Mark:
        """Of the whole: failed before open before passed; nothing examined is open."""
        marks = {row.mark for row in self.rows}
        if Mark.FAILED in marks:
            return Mark.FAILED
        if Mark.OPEN in marks or self.missing or not marks:
            return Mark.OPEN
        return Mark.NOTED if Mark.NOTED in marks else Mark.PASSED

    @property
    def headline(self) -> str:
        """One line: how many fail, how many are open, or that all pass."""
        total = len(self.rows)
        failed, open_ = len(self.marked(Mark.FAILED)), len(self.marked(Mark.OPEN))
        parts = [f"{failed} of {num_checkpoints(total)} fail{'s' if failed == 1 else ''} the gate"] if failed else []
        if open_:
            parts.append(f"{open_} {'more ' if failed else f'of {num_checkpoints(total)} '}could not be decided")
        if self.missing:
            parts.append(f"stopped with {num_checkpoints(self.missing)} left")
        if not total:
            parts.insert(0, "no checkpoint was examined")
        return "; ".join(parts) or f"{num_checkpoints(total)} pass{'es' if total == 1 else ''} the gate"


def num_checkpoints(count: int) -> str:
    """`1 checkpoint`, `3 checkpoints`."""
    return f"{count} checkpoint{'' if count == 1 else 's'}"


def digest_fleet(outcomes: Iterable[Outcome], *, missing: int = 0) -> FleetReport:
    """All rows of `outcomes`, with numbers formatted and every outside text made printable."""
    pairs = [(outcome.diagnosis, fleet_row(outcome)) for outcome in outcomes]
    counted = Counter(row.verdict for _, row in pairs)
    return FleetReport(
        rows=tuple(row for _, row in pairs),
        verdicts=tuple(counted.most_common()),
        disagreements=_disagreements(pairs),
        missing=missing,
    )


def fleet_row(outcome: Outcome) -> FleetRow:
    """The row of one checkpoint; it depends on nothing else."""
    diagnosis = outcome.diagnosis
    report = digest(diagnosis)
    info, seed = diagnosis.checkpoint, diagnosis.settings.get("measure.seed")
    return FleetRow(
        report=report,
        path=report.subject or "(no path)",
        step="" if info is None or info.step is None else str(info.step),
        seed="" if seed is None else printable(seed.value),
        verdict=report.verdict if report.failure is None else NOT_EXAMINED,
        mark=_mark(outcome, report),
        exit_code=outcome.exit_code,
        numbers=tuple(_cell(diagnosis, name) for name in NUMBERS),
        hits=_hits(outcome.hits),
        gaps=_hits(outcome.gaps),
        accepted=_hits(outcome.accepted),
        reason=_reason(report, outcome.exit_code),
        todo=todo_lines(diagnosis),
        seconds=sum(diagnosis.timings.values()) if "total" not in diagnosis.timings else diagnosis.timings["total"],
        versions=_versions(diagnosis),
    )


def _versions(diagnosis: Diagnosis) -> tuple[tuple[str, str], ...]:
    said = {"samdiag": diagnosis.samdiag_version, **diagnosis.environment}
    return tuple((printable(name), printable(value)) for name, value in said.items() if value)


def _mark(outcome: Outcome, report: DigestedReport) -> Mark:
    if outcome.exit_code == EXIT_FINDING:
        return Mark.FAILED
    if outcome.exit_code != EXIT_OK:
        return Mark.OPEN
    return Mark.PASSED if report.severity is Severity.INFO and not outcome.accepted else Mark.NOTED


def _cell(diagnosis: Diagnosis, name: str) -> NumberCell:
    measured = quantity(diagnosis, name)
    if measured is None:
        return NumberCell(label=NUMBERS[name], value=NOT_MEASURED, error="", short="–")
    value, error = estimate(measured)
    short = number(measured.value, digits=3) + (f"±{number(measured.spread(), digits=1)}" if error else "")
    return NumberCell(label=NUMBERS[name], value=value, error=error, short=short)


def _hits(hits: Sequence[Hit]) -> tuple[HitRow, ...]:
    return tuple(
        HitRow(
            name=printable(hit.name) if hit.kind is HitKind.FINDING else f"{hit.kind.value} {printable(hit.name)}",
            severity=hit.severity,
            message=printable(hit.message),
        )
        for hit in hits
    )


def _reason(report: DigestedReport, code: int) -> str:
    """Why there is no diagnosis or none that decides, or the message of the finding that the verdict stands for."""
    if report.failure is not None:
        return report.failure.what.removeprefix(f"{report.subject}: ") if report.subject else report.failure.what
    wanted = "undecided" if code == EXIT_UNDECIDED else report.verdict
    said = next(
        (row for verdict in (wanted, report.verdict) for row in report.findings if row.verdict == verdict), None
    )
    return said.message if said is not None else report.meaning


def todo_lines(diagnosis: Diagnosis) -> tuple[str, ...]:
    """What to do about a failure: a line, and below it what is to be written where, if anything."""
    lines = diagnosis.failure.todo.split("\n") if diagnosis.failure is not None else []
    return tuple(printable(line) for line in lines if line.strip())


def _disagreements(pairs: Sequence[tuple[Diagnosis, FleetRow]]) -> tuple[Disagreement, ...]:
    """The checkpoints that were examined with several seeds and got several verdicts."""
    by_path: dict[str, list[FleetRow]] = {}
    for diagnosis, row in pairs:
        if diagnosis.checkpoint is not None and diagnosis.failure is None:
            by_path.setdefault(diagnosis.checkpoint.path, []).append(row)
    found = []
    for rows in by_path.values():
        said: dict[str, list[str]] = {}
        for row in rows:
            said.setdefault(row.verdict, []).append(row.seed)
        if len(said) > 1 and len({row.seed for row in rows}) > 1:
            verdicts = tuple((verdict, tuple(seeds)) for verdict, seeds in said.items())
            found.append(Disagreement(path=rows[0].path, verdicts=verdicts))
    return tuple(found)
