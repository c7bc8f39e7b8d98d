"""Predicted against observed: what a probe confirms, what it overturns, and what it is too short or noisy to tell."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from samdiag.errors import EXIT_FINDING, EXIT_OK, EXIT_UNDECIDED
from samdiag.gates import exit_code, parse_fail_on
from samdiag.probes import AS_CONFIGURED, PRESCRIBED, SGD, Comparison, Probe, ProbedRun, ProbePoint
from samdiag.types import Confidence, Diagnosis, Finding, Measurements, Severity
from samdiag.verdicts.verified import compare, confirm, half_time

from .samples import est, measurements

START = 2.3
STUCK = ("saddle-attraction", "hallucinated-minimizer", "convergence-floor", "saddle-slowdown")
MOVING = ("descending", "minimum", "saddle-escaping")
OTHERS = ("unstable", "hallucinated-point", "bounce")


def finding(verdict: str, severity: Severity = Severity.ERROR) -> Finding:
    return Finding(
        verdict=verdict,
        severity=severity,
        confidence=Confidence.HIGH,
        evidence={"lambda_min": -0.5},
        message="m.",
        source="s",
    )


def falls(gain: float, *, steps: int = 400, half: float = 0.5, **changes: Any) -> ProbedRun:
    """A run whose loss falls by `gain`, half of it within the share `half` of the steps, and that never leaves."""
    marks = ((0, 0.0), (round(half * steps), gain / 2), (steps, gain))
    points = tuple(
        ProbePoint(
            step=step,
            loss=START - fallen,
            loss_error=0.0,
            grad_norm=0.1,
            gradient_ratio=None,
            gradient_cosine=None,
            displacement=None,
        )
        for step, fallen in marks
    )
    values: dict[str, Any] = {
        "name": AS_CONFIGURED,
        "rho": 0.5,
        "lr": 0.1,
        "momentum": 0.0,
        "batch_size": None,
        "micro_batch": None,
        "replicates": 1,
        "points": points,
        "gain": gain,
        "gain_error": 0.0,
        "escapes": (None,),
        "exit_distance": 0.1,
    }
    return ProbedRun(**(values | changes))


def sgd(gain: float, **changes: Any) -> ProbedRun:
    return falls(gain, **({"name": SGD, "rho": 0.0} | changes))


def probe(*runs: ProbedRun, steps: int = 400) -> Probe:
    return Probe(
        runs=runs,
        steps=steps,
        asked_steps=steps,
        replicates=1,
        num_samples=64,
        momentum_from_file=False,
        seconds=1.0,
        budget=60.0,
    )


def bounded(**changes: Any) -> Measurements:
    return measurements(**({"loss": est(START), "loss_lower_bound": 0.0} | changes))


def verdicts(findings: tuple[Finding, ...]) -> list[str]:
    return [f.verdict for f in findings]


# ---------------------------------------------------------------- what is overturned


@pytest.mark.parametrize("verdict", STUCK)
def test_stuck_is_overturned_by_a_fall_like_sgds(verdict: str) -> None:
    found = confirm((finding(verdict),), probe(falls(1.0), sgd(1.2)), bounded())
    assert verdicts(found) == ["undecided", verdict]
    assert verdict in found[0].message
    assert "the test says otherwise" in found[0].message
    assert found[1].severity is Severity.INFO
    assert found[1].confidence is Confidence.LOW
    assert found[1].contradicted
    assert found[1].evidence == {"lambda_min": -0.5}
    assert "from 2.3 to 1.3 against 1.1" in found[1].message


@pytest.mark.parametrize("verdict", MOVING)
def test_moving_is_overturned_by_a_standstill(verdict: str) -> None:
    found = confirm((finding(verdict, Severity.INFO),), probe(falls(0.001), sgd(1.2)), bounded())
    assert verdicts(found) == ["undecided", verdict]
    assert found[1].contradicted


@pytest.mark.parametrize("verdict", OTHERS)
@pytest.mark.parametrize("gain", [0.0, 1.2])
def test_other_verdicts_are_left_alone(verdict: str, gain: float) -> None:
    findings = (finding(verdict),)
    assert confirm(findings, probe(falls(gain), sgd(1.2)), bounded()) == findings


def test_the_next_finding_that_holds_becomes_the_verdict() -> None:
    findings = (finding("saddle-attraction"), finding("bounce", Severity.WARNING), finding("convergence-floor"))
    found = confirm(findings, probe(falls(1.0), sgd(1.2)), bounded())
    assert verdicts(found) == ["bounce", "saddle-attraction", "convergence-floor"]
    assert [f.contradicted for f in found] == [False, True, True]


def test_a_finding_behind_the_verdict_may_fall_alone() -> None:
    findings = (finding("saddle-attraction"), finding("descending", Severity.INFO))
    found = confirm(findings, probe(falls(0.0), sgd(1.2)), bounded())
    assert verdicts(found) == ["saddle-attraction", "descending"]
    assert [f.contradicted for f in found] == [False, True]


# ---------------------------------------------------------------- what is not certain


@pytest.mark.parametrize("verdict", STUCK + MOVING)
@pytest.mark.parametrize(
    "runs",
    [
        (falls(0.01), sgd(0.01)),  # SGD's fall is not worth the name within these steps
        (falls(0.0), sgd(0.0)),
        (falls(0.0), sgd(-0.5)),
        (falls(0.4), sgd(1.2)),  # a third of SGD's fall: neither as well nor still
        (falls(1.0, gain_error=0.3, replicates=3), sgd(1.2)),  # Student's t of three replicates: ± 1.3
        (falls(0.0, gain_error=0.1, replicates=3), sgd(1.2)),
        (falls(1.0), sgd(1.2, gain_error=0.4, replicates=3)),
        (falls(0.0), sgd(-math.inf, diverged=1)),
    ],
)
def test_what_is_not_certain_overturns_nothing(verdict: str, runs: tuple[ProbedRun, ...]) -> None:
    findings = (finding(verdict),)
    assert confirm(findings, probe(*runs), bounded()) == findings


def test_slower_than_sgd_is_slowed_down_even_where_both_arrive() -> None:
    """Both lose 1.2 in the end; SAM had half of it after 360 steps, SGD after 100."""
    findings = (finding("saddle-slowdown", Severity.WARNING),)
    runs = falls(1.2, half=0.9), sgd(1.2, half=0.25)
    assert confirm(findings, probe(*runs), bounded()) == findings
    assert verdicts(confirm((finding("saddle-attraction"),), probe(*runs), bounded()))[0] == "undecided"


def test_a_run_that_leaves_is_not_standing_still() -> None:
    findings = (finding("saddle-escaping", Severity.INFO),)
    runs = falls(0.0, escapes=(300,)), sgd(1.2, escapes=(80,))
    assert confirm(findings, probe(*runs), bounded()) == findings


def test_without_a_known_bound_leaving_makes_a_fall_count() -> None:
    """Half of a loss that has no floor means nothing: SGD must have left the saddle."""
    m = bounded(loss_lower_bound=None)
    findings = (finding("saddle-attraction"),)
    assert confirm(findings, probe(falls(1.0), sgd(1.2)), m) == findings
    left = falls(1.0, escapes=(90,)), sgd(1.2, escapes=(80,))
    assert verdicts(confirm(findings, probe(*left), m))[0] == "undecided"


def test_a_diverging_run_moves_nowhere() -> None:
    found = confirm((finding("descending"),), probe(falls(-math.inf, diverged=1), sgd(1.2)), bounded())
    assert verdicts(found) == ["undecided", "descending"]


# ---------------------------------------------------------------- the gate


def diagnosis(findings: tuple[Finding, ...]) -> Diagnosis:
    return Diagnosis(
        checkpoint=None,
        settings={},
        measurements=None,
        verdict=findings[0].verdict,
        findings=findings,
        prescription=None,
    )


@pytest.mark.parametrize("gate", [None, "any", "saddle-attraction"])
def test_no_gate_looks_at_what_was_overturned(gate: str | None) -> None:
    fail_on = parse_fail_on(gate)
    before = (finding("saddle-attraction"), finding("descending", Severity.INFO))
    assert exit_code([diagnosis(before)], fail_on) == EXIT_FINDING
    after = confirm(before, probe(falls(1.0), sgd(1.2)), bounded())
    assert verdicts(after) == ["descending", "saddle-attraction"]
    assert exit_code([diagnosis(after)], fail_on) == EXIT_OK


def test_an_overturned_verdict_with_nothing_behind_it_is_a_gap() -> None:
    after = confirm((finding("saddle-attraction"),), probe(falls(1.0), sgd(1.2)), bounded())
    assert exit_code([diagnosis(after)], parse_fail_on(None)) == EXIT_UNDECIDED


# ---------------------------------------------------------------- comparisons


def rows(verdict: str, *runs: ProbedRun, steps: int = 400, **changes: Any) -> dict[str, Comparison]:
    found = compare(bounded(**changes), (finding(verdict),), probe(*runs, steps=steps))
    return {row.what.partition(" (")[0]: row for row in found}


@pytest.mark.parametrize(
    ("verdict", "runs", "agrees"),
    [
        ("saddle-attraction", (falls(0.0), sgd(1.2, escapes=(60,))), True),
        ("saddle-attraction", (falls(1.0), sgd(1.2, escapes=(60,))), False),
        ("saddle-attraction", (falls(0.0), sgd(0.001)), None),
        ("saddle-slowdown", (falls(1.2, half=0.9), sgd(1.2, half=0.25)), True),
        ("saddle-slowdown", (falls(1.2), sgd(1.2)), False),
        ("saddle-escaping", (falls(1.2, escapes=(70,)), sgd(1.2, escapes=(60,))), True),
        ("saddle-escaping", (falls(0.0), sgd(1.2, escapes=(60,))), False),
        ("descending", (falls(0.2), sgd(0.2)), True),
        ("descending", (falls(0.2, gain_error=0.2), sgd(0.2)), None),
        ("descending", (falls(0.0), sgd(1.2)), False),
        ("minimum", (falls(0.0), sgd(0.001)), True),
        ("minimum", (falls(0.0), sgd(0.5)), False),
        ("minimum", (falls(0.1), sgd(0.15)), None),
        ("convergence-floor", (falls(0.0), sgd(1.2)), True),
        ("hallucinated-minimizer", (falls(0.0), sgd(1.2)), True),
        ("bounce", (falls(0.0), sgd(1.2)), True),
        ("unstable", (falls(-1.0), sgd(-1.0)), True),
        ("unstable", (falls(-math.inf, diverged=1), sgd(0.1)), True),
        ("undecided", (falls(0.0), sgd(1.2)), None),
    ],
)
def test_the_verdict_is_compared(verdict: str, runs: tuple[ProbedRun, ...], agrees: bool | None) -> None:
    assert rows(verdict, *runs)["SAM as configured"].agrees is agrees


@pytest.mark.parametrize(
    ("escapes", "agrees"),
    [((60,), True), ((31,), True), ((119,), True), ((29,), False), ((121,), False), ((None,), False)],
)
def test_steps_to_leave_are_compared(escapes: tuple[int | None, ...], agrees: bool) -> None:
    runs = falls(0.0), sgd(1.2, escapes=escapes, expected_steps=60.0)
    assert rows("saddle-attraction", *runs)["steps to leave, SGD"].agrees is agrees


def test_a_probe_shorter_than_the_prediction_does_not_refute_it() -> None:
    runs = falls(0.0), sgd(0.0, expected_steps=300.0)
    assert rows("saddle-attraction", *runs)["steps to leave, SGD"].agrees is None


def test_the_median_is_over_the_replicates() -> None:
    runs = falls(0.0), sgd(1.2, escapes=(50, None, 70), replicates=3, expected_steps=60.0)
    row = rows("saddle-attraction", *runs)["steps to leave, SGD"]
    assert row.observed == "70 steps, median of 3"
    assert row.agrees is True


@pytest.mark.parametrize(
    ("gain", "escapes", "present", "agrees"),
    [
        (1.1, (70,), 0.0, True),
        (0.01, (70,), 0.0, True),  # it has left, and the loss has still to follow
        (0.0, (None,), 0.0, False),
        (0.2, (None,), 0.0, None),
        (1.1, (70,), 1.0, None),  # the present setting makes progress as well
    ],
)
def test_the_prescription_is_compared(
    gain: float, escapes: tuple[int | None, ...], present: float, agrees: bool | None
) -> None:
    prescribed = falls(gain, name=PRESCRIBED, rho=0.01, escapes=escapes)
    found = rows("saddle-attraction", falls(present), sgd(1.2, escapes=(60,)), prescribed)
    assert found["what the prescription changes"].agrees is agrees


@pytest.mark.parametrize(
    ("gain", "present", "agrees"), [(1.1, 0.3, True), (1.1, 0.9, None), (0.2, 0.9, False), (0.0, 0.0, True)]
)
def test_where_the_present_setting_is_slow_the_prescription_comes_further(
    gain: float, present: float, agrees: bool | None
) -> None:
    """By as much as an undisturbed run would; without any gain by its having left."""
    prescribed = falls(gain, name=PRESCRIBED, rho=0.01, escapes=(70,) if gain == 0 else (None,))
    found = rows("saddle-slowdown", falls(present), sgd(1.2, escapes=(60,)), prescribed)
    assert found["what the prescription changes"].agrees is agrees


def test_half_time_is_between_the_records() -> None:
    assert half_time(falls(1.0, steps=400, half=0.25), 0.5) == pytest.approx(100)
    assert half_time(falls(1.0, steps=400, half=0.25), 0.75) == pytest.approx(250)
    assert half_time(falls(1.0), 1.5) is None


@pytest.mark.parametrize(
    ("sam", "expected", "severity"),
    [
        (falls(0.001), "saddle-attraction", Severity.ERROR),
        (falls(1.0), "descending", Severity.INFO),
        (falls(0.4), "undecided", Severity.WARNING),  # neither still nor as fast as SGD
        (falls(-0.3), "undecided", Severity.WARNING),  # it rises: no saddle holds it
    ],
)
def test_an_undecided_verdict_becomes_what_the_runs_show(sam: ProbedRun, expected: str, severity: Severity) -> None:
    m = measurements(loss=est(START), loss_lower_bound=0.0)  # beside a saddle: lambda_min = -0.5, rho_eff = 60
    first = confirm((finding("undecided", Severity.WARNING),), probe(sam, sgd(1.2)), m)[0]
    assert (first.verdict, first.severity) == (expected, severity)
    if expected != "undecided":
        assert "the test decides" in first.message
        assert first.confidence is Confidence.MEDIUM


def test_where_the_products_failed_their_check_the_runs_settle_nothing() -> None:
    m = measurements(loss=est(START), loss_lower_bound=0.0)
    broken = dataclasses.replace(m, self_check=dataclasses.replace(m.self_check, passed=False))
    found = confirm((finding("undecided", Severity.WARNING),), probe(falls(0.001), sgd(1.2)), broken)
    assert [f.verdict for f in found] == ["undecided"]


def test_a_saddle_that_the_radius_does_not_reverse_holds_nothing() -> None:
    m = measurements(loss=est(START), loss_lower_bound=0.0, effective_radius=0.9)  # 0.9·0.5 < 1
    found = confirm((finding("undecided", Severity.WARNING),), probe(falls(0.001), sgd(1.2)), m)
    assert [f.verdict for f in found] == ["undecided"]


def test_a_loss_that_rises_is_said_to() -> None:
    m = measurements(loss=est(START), loss_lower_bound=0.0)
    last = confirm((finding("descending", Severity.INFO),), probe(falls(-0.3), sgd(1.2)), m)[-1]
    assert last.contradicted
    assert "the loss rises where SGD's falls" in last.message
