"""A requirement is kept, broken or left open: the truth tables, and how each kind of number is read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.gates import Gate, parse_requirements
from samdiag.gates.readings import BY_PRODUCTS, TRIALS, read
from samdiag.gates.requiring import Truth, all_of, truth
from samdiag.instruments import SelfCheck, SolverRun
from samdiag.outcomes import HitKind, Outcome
from samdiag.quantities import NAMES
from samdiag.requirements import OPERATORS
from samdiag.types import UNKNOWN, Diagnosis, Measurements
from tests.reports.samples import diagnosis, est, failed, measurements

T, F, O = Truth.TRUE, Truth.FALSE, Truth.OPEN  # noqa: E741
DECIDED = SolverRun(stopped="decided", steps=20, lambda_max_bound=10.5)
CONVERGED = dataclasses.replace(DECIDED, stopped="converged")
COMPARE = {
    "<": lambda x, t: x < t,
    "<=": lambda x, t: x <= t,
    ">": lambda x, t: x > t,
    ">=": lambda x, t: x >= t,
    "==": lambda x, t: x == t,
    "!=": lambda x, t: x != t,
}


def healthy(**changes: Any) -> Diagnosis:
    return diagnosis("descending", measurements=measurements(**changes))


def asked(requirement: str | list[str], subject: Diagnosis) -> Outcome:
    return Gate(requirements=parse_requirements(requirement)).judge(subject)


@pytest.mark.parametrize(
    ("interval", "answers"),  # for < <= > >= == != against 1
    [
        ((0.5, 0.9), (T, T, F, F, F, T)),
        ((0.5, 1.0), (O, T, F, O, O, O)),
        ((0.5, 1.5), (O, O, O, O, O, O)),
        ((1.0, 1.0), (F, T, F, T, T, F)),
        ((1.0, 1.5), (F, O, O, T, O, O)),
        ((1.1, 1.5), (F, F, T, T, F, T)),
        ((-math.inf, 0.5), (T, T, F, F, F, T)),
        ((-math.inf, 1.5), (O, O, O, O, O, O)),
        ((1.5, math.inf), (F, F, T, T, F, T)),
        ((math.inf, math.inf), (F, F, T, T, F, T)),
        ((-math.inf, math.inf), (O, O, O, O, O, O)),
    ],
)
def test_truth_table_of_one_condition(interval: tuple[float, float], answers: tuple[Truth, ...]) -> None:
    assert tuple(truth(operator, 1.0, *interval) for operator in OPERATORS) == answers


@given(st.sampled_from(OPERATORS), st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 5), st.floats(0, 1))
def test_true_and_false_hold_for_every_number_of_the_interval(
    operator: str, threshold: float, low: float, width: float, share: float
) -> None:
    high = low + width
    x = min(max(low + share * width, low), high)
    found = truth(operator, threshold, low, high)
    if found is not Truth.OPEN:
        assert COMPARE[operator](x, threshold) is (found is Truth.TRUE)
    elif operator in ("<", "<=", ">", ">="):  # and open means that the ends disagree
        assert COMPARE[operator](low, threshold) != COMPARE[operator](high, threshold)


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ((), T),
        ((T, T), T),
        ((T, O), O),
        ((O, O), O),
        ((T, F), F),
        ((O, F), F),
        ((F, F), F),
        ((T, O, F), F),
    ],
)
def test_truth_table_of_and(parts: tuple[Truth, ...], whole: Truth) -> None:
    assert all_of(parts) is whole


@pytest.mark.parametrize(
    ("requirement", "code", "hits", "gaps"),
    [
        ("lambda_max < 200", 0, 0, 0),
        ("lambda_max < 8.9", 1, 1, 0),  # 9.42 ± 0.44
        ("lambda_max < 9.5", 3, 0, 1),
        ("lambda_max < 9.9", 0, 0, 0),
        ("loss < 9 and lambda_max < 9.5", 3, 0, 1),
        ("loss < 1 and lambda_max < 9.5", 1, 1, 0),
        (["loss < 1", "lambda_max < 9.5"], 1, 1, 1),
        ("jacobian_zero < 1", 3, 0, 1),
        ("batch_size == 128", 0, 0, 0),
        ("batch_size == 64", 1, 1, 0),
    ],
)
def test_exit_codes(requirement: str | list[str], code: int, hits: int, gaps: int) -> None:
    outcome = asked(requirement, healthy(solver=CONVERGED))
    assert (outcome.exit_code, len(outcome.hits), len(outcome.gaps)) == (code, hits, gaps)
    assert {hit.kind for hit in (*outcome.hits, *outcome.gaps)} <= {HitKind.REQUIREMENT}


def test_the_message_has_number_error_doubt_and_threshold() -> None:
    (hit,) = asked("loss < 0.5 and grad_norm < 9", healthy()).hits
    assert hit.name == "loss < 0.5 and grad_norm < 9"
    assert hit.message == "loss = 1.203 ± 0.022 (about 95 %) breaks `loss < 0.5`"
    (gap,) = asked("loss < 1.2", healthy()).gaps
    assert gap.message == "loss = 1.203 ± 0.022 (about 95 %) leaves `loss < 1.2` open; use more --samples"
    (gap,) = asked("jacobian_zero < 1", healthy()).gaps
    assert gap.message == "jacobian_zero was not measured, which leaves `jacobian_zero < 1` open"
    (gap,) = asked("lookahead_loss < 1", healthy(lr=None, lookahead_loss=None)).gaps
    assert gap.message.endswith("; give --lr")


def test_a_failure_keeps_its_own_code() -> None:
    for code, expected in ((2, 2), (3, 3), (130, 3)):
        outcome = asked("loss < 1", failed(code))
        assert (outcome.exit_code, outcome.hits, outcome.gaps) == (expected, (), ())


def test_an_undecided_verdict_is_a_gap_whatever_is_kept() -> None:
    assert asked("lambda_max < 200", diagnosis("undecided")).exit_code == 3


# ---------------------------------------------------------------- how each kind of number is read


def ends(name: str, **changes: Any) -> tuple[float, float]:
    found = read(healthy(**changes), name)
    return found.low, found.high


def test_a_solver_that_stopped_early_leaves_the_far_side_to_the_bound() -> None:
    """A Ritz value bounds lambda_max from below; what bounds it from above is the certificate alone."""
    exact = est(9.42, 0.02, 0.0)
    assert ends("lambda_max", lambda_max=exact, solver=CONVERGED) == pytest.approx((9.40, 9.44))
    assert ends("lambda_max", lambda_max=exact, solver=DECIDED) == pytest.approx((9.40, 10.5))
    low, high = ends("lambda_min", lambda_min=est(-2.31, 0.018, 0.0), lambda_min_bound=-2.52, solver=DECIDED)
    assert (low, high) == pytest.approx((-2.52, -2.292))
    assert ends("lambda_max", lambda_max=exact, solver=DECIDED, spectrum_complete=True) == pytest.approx((9.40, 9.44))


def test_the_bound_is_of_the_samples_and_the_value_of_the_population() -> None:
    lam = est(9.0, 0.02, 0.1, bias=0.5)
    low, high = ends("lambda_max", lambda_max=lam, solver=DECIDED)
    assert (low, high) == pytest.approx((9.0 - 0.02 - 0.2, 10.5 - 0.5 + 0.2))


def test_no_bound_at_all_leaves_the_far_side_open() -> None:
    bare = dataclasses.replace(DECIDED, lambda_max_bound=None)
    assert ends("lambda_max", lambda_max=est(9.42, 0.02), solver=bare) == pytest.approx((9.40, math.inf))
    changes = {"lambda_max": est(9.42, 0.02), "solver": bare}
    assert asked("lambda_max < 200", healthy(**changes)).exit_code == 3
    assert asked("lambda_max > 9", healthy(**changes)).exit_code == 0
    assert asked("lambda_max < 9", healthy(**changes)).exit_code == 1
    unbounded = {"lambda_min": est(-2.0, 0.1, converged=False), "lambda_min_bound": None, "solver": None}
    assert ends("lambda_min", **unbounded) == pytest.approx((-math.inf, -1.9))


def test_the_message_says_what_would_decide() -> None:
    (gap,) = asked("lambda_max < 10", healthy(lambda_max=est(9.42, 0.02, 0.0), solver=DECIDED)).gaps
    expected = "lambda_max = 9.420 ± 0.020 (about 95 %; below 10.5 with 99 %) leaves `lambda_max < 10` open; "
    assert gap.message == expected + "use --until converged"


def test_another_number_that_did_not_converge_says_nothing() -> None:
    loose = est(0.9, 0.001, 0.0, converged=False)
    for requirement in ("largest_multiplier < 1", "largest_multiplier > 0"):
        (gap,) = asked(requirement, healthy(largest_multiplier=loose)).gaps
        assert "had not converged at 0.9" in gap.message


def test_failed_products_say_nothing_of_curvature() -> None:
    check = SelfCheck(
        passed=False, symmetry_error=1.0, repeat_error=0.0, finite_difference_error=None, reason="not symmetric"
    )
    for name in sorted(BY_PRODUCTS):
        (gap,) = asked(f"{name} < 1e9", healthy(self_check=check)).gaps
        assert "not symmetric" in gap.message
    assert asked("loss < 9", healthy(self_check=check)).exit_code == 0


def test_a_ridge_that_was_not_found_lies_beyond_what_was_searched() -> None:
    subject = healthy(ridge_distance=UNKNOWN, ridge_searched=1.0)
    assert asked("ridge_distance > 0.9", subject).exit_code == 0
    (gap,) = asked("ridge_distance > 2", subject).gaps
    assert gap.message == "ridge_distance lies beyond 1, as far as was searched, which leaves `ridge_distance > 2` open"
    (hit,) = asked("ridge_distance < 0.5", subject).hits
    assert "breaks" in hit.message
    assert asked("ridge_distance > 0.1", healthy(ridge_distance=UNKNOWN, ridge_searched=0.0)).exit_code == 3


def test_trial_losses_carry_the_noise_of_their_batches() -> None:
    assert ends("lookahead_loss", lookahead_loss=1.0, lookahead_error=0.1) == pytest.approx((0.8, 1.2))
    assert ends("lookahead_loss_sgd", lookahead_loss_sgd=1.0, lookahead_error_sgd=0.2) == pytest.approx((0.6, 1.4))
    assert set(TRIALS) <= set(NAMES)
    assert set(NAMES) >= BY_PRODUCTS


def test_infinite_and_missing_values() -> None:
    assert ends("effective_radius", effective_radius=math.inf) == (math.inf, math.inf)
    assert asked("effective_radius < 100", healthy(effective_radius=math.inf)).exit_code == 1
    assert ends("loss", loss=est(1.0, math.inf)) == (-math.inf, math.inf)
    assert ends("loss", loss=est(math.nan)) == (-math.inf, math.inf)
    assert asked("loss < inf", healthy(loss=est(math.nan))).exit_code == 3
    assert read(diagnosis("descending", measurements=None), "loss").value is None


@pytest.mark.parametrize("name", NAMES)
def test_every_quantity_can_be_required(name: str) -> None:
    m: Measurements = measurements()
    for subject in (diagnosis("descending", measurements=m), diagnosis("descending", measurements=None)):
        outcome = asked(f"{name} > -1e30", subject)
        assert outcome.exit_code in (0, 3)
        assert not outcome.hits
