"""Which exit code outranks which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from samdiag.errors import EXIT_FINDING, EXIT_OK, EXIT_UNDECIDED, EXIT_USAGE
from samdiag.gates.fail_on import FailOn
from samdiag.outcomes import Outcome
from samdiag.types import Diagnosis


def exit_code(diagnoses: Sequence[Diagnosis], fail_on: FailOn) -> int:
    """The exit code of a run over `diagnoses`: 1 outranks 3, and 3 outranks 0, because a gap is not a pass.

    1: any finding (not only a verdict) is in `fail_on`. 3: some checkpoint failed or has an
    `undecided` finding, or there was none.
    2: every checkpoint failed, and each for a usage error; where one of several did, the rest were examined, and the
    gap that it leaves is a 3. 0: otherwise.
    """
    if any(fail_on.hits(finding) for diagnosis in diagnoses for finding in diagnosis.findings):
        return EXIT_FINDING
    return worst(without_hits(diagnosis) for diagnosis in diagnoses)


def exit_code_of(outcomes: Iterable[Outcome]) -> int:
    """The same of checkpoints that were judged one by one."""
    return worst(outcome.exit_code for outcome in outcomes)


def worst(codes: Iterable[int]) -> int:
    """The exit code that several come to: 1 outranks 3, 3 outranks 0; 2 only where all are 2, 3 where there is none."""
    found = set(codes)
    if EXIT_FINDING in found:
        return EXIT_FINDING
    return found.pop() if found in ({EXIT_OK}, {EXIT_USAGE}) else EXIT_UNDECIDED


def without_hits(diagnosis: Diagnosis) -> int:
    """What one checkpoint contributes when nothing fails the gate: 0, 2 or 3.

    Every finding counts: where a milder one stands before `undecided`, something worse is still not ruled out.
    """
    if diagnosis.failure is not None:
        return EXIT_USAGE if diagnosis.failure.exit_code == EXIT_USAGE else EXIT_UNDECIDED
    open_ = any(finding.verdict == "undecided" and not finding.contradicted for finding in diagnosis.findings)
    return EXIT_UNDECIDED if open_ or diagnosis.verdict == "undecided" else EXIT_OK
