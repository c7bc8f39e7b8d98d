"""One checkpoint against everything that a gate asks of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from samdiag.errors import EXIT_FINDING, EXIT_OK, EXIT_UNDECIDED
from samdiag.gates.baseline import Baseline, Known
from samdiag.gates.codes import without_hits
from samdiag.gates.comparing import Change, Comparison, compare_answer, compare_finding
from samdiag.gates.fail_on import FAIL_ON_DEFAULT, FailOn, parse_fail_on
from samdiag.gates.requiring import Answer, Truth, all_of, answers
from samdiag.gates.spec_trust import spec_gaps
from samdiag.outcomes import Hit, HitKind, Outcome
from samdiag.requirements import Requirement, parse_requirements
from samdiag.types import Diagnosis, Finding, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ruling:
    """A requirement that is not kept for certain: TRUE where the baseline accepts all of it."""

    hit: Hit
    truth: Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What fails a checkpoint.

    Attributes:
        fail_on: the findings.
        requirements: what its measurements must keep.
        baseline: what is known already and only fails when it got worse; None: everything counts.
        strict_spec: whether the checkpoint's own word on what it is judged by leaves the gate open.
    """

    fail_on: FailOn = FAIL_ON_DEFAULT
    requirements: tuple[Requirement, ...] = ()
    baseline: Baseline | None = None
    strict_spec: bool = False

    def judge(self, diagnosis: Diagnosis, *, seed: int | None = None) -> Outcome:
        """What the gate makes of a diagnosis, made now or saved.

        Args:
            diagnosis: a failure has no hits and keeps its own exit code.
            seed: of this entry, where several seeds are asked for; it is part of the baseline's key.
        """
        if diagnosis.failure is not None:
            return Outcome(diagnosis=diagnosis, exit_code=without_hits(diagnosis))
        known = None if self.baseline is None else self.baseline.known(diagnosis, seed)
        hits: list[Hit] = []
        gaps: list[Hit] = []
        accepted: list[Hit] = []
        for finding in diagnosis.findings:
            if self.fail_on.hits(finding):
                hit, is_known = self._finding(diagnosis, finding, known)
                (accepted if is_known else hits).append(hit)
        for requirement in self.requirements:
            ruling = self._requirement(diagnosis, requirement, known)
            if ruling is not None:
                {Truth.FALSE: hits, Truth.OPEN: gaps, Truth.TRUE: accepted}[ruling.truth].append(ruling.hit)
        if self.strict_spec:
            gaps.extend(spec_gaps(diagnosis))
        code = EXIT_FINDING if hits else without_hits(diagnosis)
        if code == EXIT_OK and gaps:
            code = EXIT_UNDECIDED
        return Outcome(
            diagnosis=diagnosis, exit_code=code, hits=tuple(hits), gaps=tuple(gaps), accepted=tuple(accepted)
        )

    def judge_updated(self, diagnosis: Diagnosis, *, seed: int | None = None) -> Outcome:
        """The same with this diagnosis in the baseline already, as `--update-baseline` judges."""
        if self.baseline is None:
            return self.judge(diagnosis, seed=seed)
        only = replace(self.baseline, checkpoints=self.noted(diagnosis, seed=seed))
        return replace(self, baseline=only).judge(diagnosis, seed=seed)

    def noted(self, diagnosis: Diagnosis, *, seed: int | None = None) -> dict[str, Known]:
        """What `--update-baseline` is to write of a diagnosis, by key; nothing of a failure, or without a baseline."""
        return {} if self.baseline is None else self.baseline.noted(diagnosis, self.requirements, seed=seed)

    def _finding(self, diagnosis: Diagnosis, finding: Finding, known: Known | None) -> tuple[Hit, bool]:
        """The hit that a finding would be, and whether the baseline accepts it."""
        message, is_known = finding.message, False
        if self.baseline is not None:
            comparison = compare_finding(diagnosis, finding, known)
            message, is_known = _joined(message, comparison), comparison.change is Change.KNOWN
        hit = Hit(kind=HitKind.FINDING, name=finding.verdict, severity=finding.severity, message=message)
        return hit, is_known

    def _requirement(self, diagnosis: Diagnosis, requirement: Requirement, known: Known | None) -> _Ruling | None:
        """What a requirement comes to; None where it is kept. The baseline accepts its conditions one by one."""
        missed = [
            (answer, self._compared(diagnosis, answer, known))
            for answer in answers(diagnosis, requirement)
            if answer.truth is not Truth.TRUE
        ]
        if not missed:
            return None
        left = [(answer, comparison) for answer, comparison in missed if not _accepts(comparison)]
        truth = all_of(answer.truth for answer, _ in left)
        shown = [(answer, comparison) for answer, comparison in left if answer.truth is truth] or missed
        message = "; ".join(_joined(answer.message, comparison) for answer, comparison in shown)
        hit = Hit(kind=HitKind.REQUIREMENT, name=requirement.text, severity=Severity.ERROR, message=message)
        return _Ruling(hit=hit, truth=truth)

    def _compared(self, diagnosis: Diagnosis, answer: Answer, known: Known | None) -> Comparison | None:
        """None where there is no baseline, or no number to compare: a gap stays a gap."""
        if self.baseline is None or answer.reading.value is None:
            return None
        return compare_answer(diagnosis, answer, known)


def gate_of(
    diagnosis: Diagnosis,
    *,
    fail_on: str | Iterable[str] | None = None,
    require: str | Sequence[str] | None = None,
    baseline: Baseline | None = None,
    strict_spec: bool | None = None,
) -> Gate:
    """The gate that a checkpoint is held to: what the command line says, else its own project's `[gate]`.

    Args:
        diagnosis: its settings hold the project's `gate.fail_on`, `gate.require` and `gate.strict_spec`.
        fail_on, require, strict_spec: of the command line; None (or an empty list): it does not say.
        baseline: already loaded.

    Raises:
        UsageError: a list that does not parse.
    """
    said = {name: setting.value for name, setting in diagnosis.settings.items() if name.startswith("gate.")}
    return Gate(
        fail_on=parse_fail_on(said.get("gate.fail_on") if fail_on is None else fail_on),
        requirements=parse_requirements(require or said.get("gate.require")),
        baseline=baseline,
        strict_spec=bool(said.get("gate.strict_spec")) if strict_spec is None else strict_spec,
    )


def _accepts(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.change is Change.KNOWN


def _joined(message: str, comparison: Comparison | None) -> str:
    return message if comparison is None else f"{comparison.text}. {message}"
