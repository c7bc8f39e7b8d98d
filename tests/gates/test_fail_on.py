from __future__ import annotations

import pytest

from samdiag.errors import UsageError
from samdiag.gates import FAIL_ON_ANY, FAIL_ON_DEFAULT, FAIL_ON_NEVER, FailOn, exit_code, parse_fail_on
from samdiag.types import VERDICTS_BY_HARM, Confidence, Diagnosis, Failure, Finding, Severity

SEVERITIES = {
    **dict.fromkeys(("unstable", "hallucinated-minimizer", "saddle-attraction"), Severity.ERROR),
    **dict.fromkeys(("saddle-escaping", "descending", "minimum"), Severity.INFO),
}


def finding(verdict: str, severity: Severity | None = None) -> Finding:
    return Finding(
        verdict=verdict,
        severity=severity or SEVERITIES.get(verdict, Severity.WARNING),
        confidence=Confidence.HIGH,
        evidence={},
        message="",
        source="",
    )


def diagnosis(verdict: str, findings: tuple[Finding, ...] | None = None, failure: Failure | None = None) -> Diagnosis:
    return Diagnosis(
        checkpoint=None,
        settings={},
        measurements=None,
        verdict=verdict,
        findings=(finding(verdict),) if findings is None else findings,
        prescription=None,
        failure=failure,
    )


def failed(code: int) -> Diagnosis:
    return diagnosis("undecided", findings=(), failure=Failure(what="what", todo="todo", exit_code=code))


OK = diagnosis("minimum")
BAD = diagnosis("saddle-attraction")
MILD = diagnosis("bounce")
GAP = diagnosis("undecided")
UNREADABLE = failed(3)
MISUSED = failed(2)


@pytest.mark.parametrize(
    ("diagnoses", "code"),
    [
        ([], 3),
        ([OK], 0),
        ([OK, MILD], 0),
        ([BAD], 1),
        ([OK, BAD], 1),
        ([GAP], 3),
        ([OK, GAP], 3),
        ([UNREADABLE], 3),
        ([OK, UNREADABLE], 3),
        ([BAD, UNREADABLE], 1),
        ([BAD, GAP], 1),
        ([BAD, MISUSED], 1),
        ([MISUSED], 2),
        ([MISUSED, MISUSED], 2),
        ([OK, MISUSED], 3),
        ([UNREADABLE, MISUSED], 3),
        ([failed(130)], 3),
    ],
)
def test_precedence(diagnoses: list[Diagnosis], code: int) -> None:
    assert exit_code(diagnoses, FAIL_ON_DEFAULT) == code


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_any_is_every_warning_and_error(verdict: str) -> None:
    harmless = verdict in ("minimum", "descending", "saddle-escaping")
    assert exit_code([diagnosis(verdict)], FAIL_ON_ANY) == (0 if harmless else 1)


def test_a_finding_that_is_not_the_verdict_counts() -> None:
    both = diagnosis("saddle-attraction", findings=(finding("saddle-attraction"), finding("convergence-floor")))
    assert exit_code([both], parse_fail_on("convergence-floor")) == 1


def test_default_goes_by_the_severity_of_the_finding() -> None:
    harsh = diagnosis("bounce", findings=(finding("bounce", severity=Severity.ERROR),))
    assert exit_code([harsh], parse_fail_on(None)) == 1


def test_never_still_reports_a_gap() -> None:
    assert exit_code([BAD], FAIL_ON_NEVER) == 0
    assert exit_code([BAD, UNREADABLE], FAIL_ON_NEVER) == 3


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        (None, FAIL_ON_DEFAULT),
        ("any", FAIL_ON_ANY),
        ("error", FAIL_ON_DEFAULT),
        ("warning", FAIL_ON_ANY),
        ("error,warning", FAIL_ON_ANY),
        ("error,bounce", FailOn(verdicts=frozenset({"bounce"}), severities=FAIL_ON_DEFAULT.severities)),
        ("ANY", FAIL_ON_ANY),
        ("never", FAIL_ON_NEVER),
        ("bounce", FailOn(verdicts=frozenset({"bounce"}))),
        (" bounce, unstable,", FailOn(verdicts=frozenset({"bounce", "unstable"}))),
        (["bounce", "unstable,minimum"], FailOn(verdicts=frozenset({"bounce", "unstable", "minimum"}))),
        (["any", "minimum"], FailOn(verdicts=frozenset({"minimum"}), severities=FAIL_ON_ANY.severities)),
    ],
)
def test_parse(text: str | list[str] | None, gate: FailOn) -> None:
    assert parse_fail_on(text) == gate


@pytest.mark.parametrize(
    ("text", "what", "todo"),
    [
        ("sadle-attraction", "'sadle-attraction'", "did you mean `saddle-attraction`?"),
        ("nevr", "'nevr'", "did you mean `never`?"),
        ("eror", "'eror'", "did you mean `error`?"),
        ("info", "'info'", "known: "),
        ("zzz", "'zzz'", "known: unstable"),
        ("", "empty", "any"),
        ([], "empty", "any"),
        ("never,bounce", "never", "alone"),
    ],
)
def test_mistakes_are_usage_errors(text: str | list[str], what: str, todo: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fail_on(text)
    assert what in caught.value.what
    assert todo in caught.value.todo
    assert caught.value.exit_code == 2
