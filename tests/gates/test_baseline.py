"""Against a baseline: new, worse, equal, better and incomparable findings and requirements."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.gates import Baseline, Gate, gate_of, parse_fail_on, parse_requirements
from samdiag.gates.baseline import _short, _up
from samdiag.gates.harm import HARM, REPRODUCIBLE, Level, harm, is_worse
from samdiag.instruments import SolverRun
from samdiag.outcomes import Outcome
from samdiag.types import VERDICTS_BY_HARM, BatchUpdate, Diagnosis, Estimate, Setting, Severity, Trust
from tests.reports.samples import diagnosis, est, failed, finding, measurements

CONVERGED = SolverRun(stopped="converged", steps=40)
EMPTY = Baseline(folder=Path("/base"))


def seen(verdict: str, **changes: Any) -> Diagnosis:
    return diagnosis(verdict, measurements=measurements(solver=CONVERGED, **changes))


def judged(
    before: Diagnosis | None, now: Diagnosis, *, fail_on: str | None = "any", require: str | None = None
) -> Outcome:
    """What a gate makes of `now` with `before` in its baseline."""
    gate = Gate(fail_on=parse_fail_on(fail_on), requirements=parse_requirements(require), baseline=EMPTY)
    notes = {} if before is None else gate.noted(before)
    return dataclasses.replace(gate, baseline=EMPTY.merged(notes)).judge(now)


def with_setting(subject: Diagnosis, name: str, value: Any) -> Diagnosis:
    setting = Setting(value=value, source="command line", trust=Trust.CLI)
    return dataclasses.replace(subject, settings={**subject.settings, name: setting})


# ---------------------------------------------------------------- findings


def ratio(value: float, error: float = 0.0) -> dict[str, Any]:
    return {"update_ratio": est(value, 0.0, error)}


UNSTABLE = {"lr": 1.0, "momentum": 0.0}
# of each verdict: before; worse by less than both errors; worse by more; better
DEGREES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "hallucinated-minimizer": (ratio(0.05, 0.005), ratio(0.035, 0.005), ratio(0.025, 0.005), ratio(0.09, 0.005)),
    "hallucinated-point": (ratio(0.05, 0.005), ratio(0.035, 0.005), ratio(0.025, 0.005), ratio(0.09, 0.005)),
    "saddle-attraction": (
        {"lambda_min": est(-2.0, 0.1)},
        {"lambda_min": est(-2.15, 0.1)},
        {"lambda_min": est(-2.25, 0.1)},
        {"lambda_min": est(-1.0, 0.1)},
    ),
    "saddle-slowdown": (
        {"lambda_min": est(-2.0, 0.1), "effective_radius": 1.0, "grad_norm": est(0.1, 0.005)},
        {"lambda_min": est(-2.0, 0.1), "effective_radius": 1.15, "grad_norm": est(0.1, 0.005)},
        {"lambda_min": est(-2.0, 0.1), "effective_radius": 1.3, "grad_norm": est(0.1, 0.005)},
        {"lambda_min": est(-2.0, 0.1), "effective_radius": 0.5, "grad_norm": est(0.1, 0.005)},
    ),
    "convergence-floor": tuple({"loss": est(v, 0.0, 0.05)} for v in (1.0, 1.15, 1.25, 0.5)),  # type: ignore[dict-item]
    "bounce": tuple({"grad_norm": est(v, 0.0, 0.05)} for v in (1.0, 1.15, 1.25, 0.5)),  # type: ignore[dict-item]
}
DEGREES["saddle-escaping"] = DEGREES["saddle-slowdown"]


def edge(value: float, error: float) -> dict[str, Any]:
    """A sharpest direction whose lr·lambda is `value` ± `error`."""
    direction = dataclasses.replace(measurements().top_directions[0], eigenvalue=est(value, error))
    return {"top_directions": (direction,), "bottom_directions": (), "lr": 1.0, "weight_decay": 0.0}


DEGREES["unstable"] = (edge(3.0, 0.1), edge(3.15, 0.1), edge(3.25, 0.1), edge(2.5, 0.1))


@pytest.mark.parametrize("verdict", DEGREES)
def test_new_worse_equal_better(verdict: str) -> None:
    before, within, beyond, better = (seen(verdict, **changes) for changes in DEGREES[verdict])
    fail_on = f"any,{verdict}"
    for now in (before, within, better):
        outcome = judged(before, now, fail_on=fail_on)
        assert (outcome.exit_code, outcome.hits) == (0, ())
        (hit,) = outcome.accepted
        assert hit.name == verdict
        assert hit.message.startswith("in the baseline, and no worse: ")
    outcome = judged(before, beyond, fail_on=fail_on)
    assert (outcome.exit_code, outcome.accepted) == (1, ())
    assert outcome.hits[0].message.startswith("worse than in the baseline: ")
    outcome = judged(None, before, fail_on=fail_on)
    assert outcome.exit_code == 1
    assert outcome.hits[0].message.startswith("new: this checkpoint is not in the baseline. ")


def test_every_verdict_has_degrees_or_none_on_purpose() -> None:
    assert set(HARM) | {"undecided", "descending", "minimum"} == set(VERDICTS_BY_HARM)
    assert set(HARM) == set(DEGREES)


@pytest.mark.parametrize("verdict", ["descending", "minimum"])
def test_a_verdict_without_degrees_is_there_or_not(verdict: str) -> None:
    assert judged(seen(verdict, loss=est(1.0)), seen(verdict, loss=est(9.0)), fail_on=verdict).exit_code == 0
    assert judged(seen("bounce"), seen(verdict), fail_on=verdict).exit_code == 1


def test_another_verdict_at_a_known_checkpoint_is_new() -> None:
    outcome = judged(seen("bounce"), seen("saddle-attraction"))
    assert outcome.exit_code == 1
    assert "new: the baseline has bounce here, not saddle-attraction. " in outcome.hits[0].message


def test_only_what_is_new_fails() -> None:
    both = dataclasses.replace(
        seen("saddle-attraction"), findings=(finding("saddle-attraction"), finding("convergence-floor"))
    )
    outcome = judged(seen("saddle-attraction"), both)
    assert [hit.name for hit in outcome.hits] == ["convergence-floor"]
    assert [hit.name for hit in outcome.accepted] == ["saddle-attraction"]


def test_a_graver_severity_is_worse() -> None:
    mild = dataclasses.replace(seen("bounce"), findings=(finding("bounce", severity=Severity.INFO),))
    assert judged(mild, seen("bounce")).exit_code == 1
    assert judged(seen("bounce"), mild, fail_on="bounce").exit_code == 0


def test_a_contradicted_finding_is_not_in_the_baseline() -> None:
    doubted = dataclasses.replace(seen("bounce"), findings=(finding("bounce", contradicted=True),))
    assert judged(doubted, seen("bounce")).exit_code == 1


def test_a_gap_is_no_pass_even_where_it_is_known() -> None:
    known = judged(seen("undecided"), seen("undecided"), fail_on=None)
    assert known.exit_code == 3
    assert judged(None, seen("undecided"), fail_on="any").exit_code == 1
    assert judged(seen("undecided"), seen("undecided"), fail_on="any").exit_code == 3


def test_the_whole_bar_of_a_spectrum_that_was_cut_short_counts() -> None:
    decided = SolverRun(stopped="decided", steps=9)
    rough = diagnosis(
        "saddle-attraction", measurements=measurements(solver=decided, lambda_min=est(-2, 0.01), lambda_min_bound=-2.5)
    )
    assert judged(rough, seen("saddle-attraction", lambda_min=est(-2.4, 0.01))).exit_code == 0
    assert judged(rough, seen("saddle-attraction", lambda_min=est(-2.6, 0.01))).exit_code == 1


def test_mini_batches_are_compared_by_their_own_update() -> None:
    plain = est(0.5)
    update = BatchUpdate(
        size=8, num_batches=4, grad_scale=plain, effective_radius=plain, loss_change=plain, update_norm=plain,
        gradient_ratio=plain, gradient_cosine=plain, update_ratio=est(0.01),
    )  # fmt: skip
    level = harm(seen("hallucinated-minimizer", batch_update=update, **ratio(0.9)), "hallucinated-minimizer")
    assert level is not None
    assert level.value == 0.01


# ---------------------------------------------------------------- comparable or not


@pytest.mark.parametrize(
    ("name", "value", "comparable"),
    [
        ("sam.rho", 0.6, False),
        ("sam.lr", 0.2, False),
        ("sam.momentum", 0.5, False),
        ("sam.nesterov", True, False),
        ("sam.nesterov", False, True),  # samdiag's default, said aloud
        ("model", {"timm": "resnet50"}, False),
        ("data", {"torchvision": "CIFAR100"}, False),
        ("data", {"torchvision": "CIFAR10", "root": "/elsewhere", "num_samples": 9}, True),
        ("weights", "ema", False),
        ("measure.mode", "train", False),
        ("measure.samples", 99, True),
        ("measure.seed", 5, True),
        ("measure.device", "cuda", True),
        ("gate.fail_on", ["any"], True),
    ],
)
def test_other_settings_make_other_numbers(name: str, value: Any, comparable: bool) -> None:
    before = with_setting(seen("bounce"), "data", {"torchvision": "CIFAR10", "root": "/data"})
    outcome = judged(before, with_setting(before, name, value))
    assert outcome.exit_code == (0 if comparable else 1)
    if not comparable:
        message = outcome.hits[0].message
        assert message.startswith("new: not comparable with the baseline, whose settings were others: ")
        assert name in message
        assert " → " in message


def test_a_setting_that_is_gone_is_said() -> None:
    before = seen("bounce")
    now = dataclasses.replace(before, settings={k: v for k, v in before.settings.items() if k != "sam.rho"})
    assert "sam.rho 0.5 → not said" in judged(before, now).hits[0].message


# ---------------------------------------------------------------- requirements


def converged(lam: float, error: float = 0.1) -> Diagnosis:
    return seen("descending", lambda_max=est(lam, error))


@pytest.mark.parametrize(
    ("before", "now", "code"),
    [
        (10.0, 10.0, 0),
        (10.0, 10.15, 0),
        (10.0, 10.25, 1),
        (10.0, 9.0, 0),
        (10.0, 5.05, 0),  # inside the error bars of the threshold: better than what is accepted
        (10.0, 4.0, 0),  # kept
        (4.0, 10.0, 1),  # the baseline keeps it
        (5.05, 10.0, 1),  # the baseline left it open
        (5.05, 5.05, 3),  # and a gap is not a pass
    ],
)
def test_a_requirement_that_was_broken_already(before: float, now: float, code: int) -> None:
    outcome = judged(converged(before), converged(now), require="lambda_max < 5")
    assert outcome.exit_code == code
    assert bool(outcome.hits) is (code == 1)
    assert bool(outcome.gaps) is (code == 3)
    assert bool(outcome.accepted) is (code == 0 and now != 4.0)


def test_the_other_direction() -> None:
    assert judged(converged(10.0), converged(9.9), require="lambda_max > 20").exit_code == 0
    assert judged(converged(10.0), converged(9.0), require="lambda_max > 20").exit_code == 1


def test_equality_by_distance() -> None:
    subject = seen("descending", loss=est(1.0))
    further, nearer = seen("descending", loss=est(-1.0)), seen("descending", loss=est(0.5))
    assert judged(subject, further, require="loss == 0").exit_code == 0
    assert judged(subject, nearer, require="loss == 0").exit_code == 0
    assert judged(subject, seen("descending", loss=est(-1.1)), require="loss == 0").exit_code == 1
    zero = seen("descending", loss=est(0.0))
    assert judged(zero, zero, require="loss != 0").exit_code == 0


def test_a_requirement_is_known_by_its_meaning() -> None:
    subject = converged(10.0)
    gate = Gate(requirements=parse_requirements("lambda_max<5.0"), baseline=EMPTY)
    known = EMPTY.merged(gate.noted(subject))
    for text, code in (("lambda_max < 5", 0), ("loss < 9 and lambda_max < 5", 0), ("lambda_max < 4", 1)):
        assert Gate(requirements=parse_requirements(text), baseline=known).judge(subject).exit_code == code


def test_each_condition_is_accepted_by_itself() -> None:
    before = judged(converged(10.0), converged(10.0), require="lambda_max < 5 and loss < 1")
    assert before.exit_code == 0
    known = EMPTY.merged(Gate(requirements=parse_requirements("lambda_max < 5"), baseline=EMPTY).noted(converged(10.0)))
    (hit,) = (
        Gate(requirements=parse_requirements("lambda_max < 5 and loss < 1"), baseline=known).judge(converged(10.0)).hits
    )
    assert "breaks `loss < 1`" in hit.message
    assert "lambda_max" not in hit.message


def test_what_was_not_measured_stays_a_gap() -> None:
    assert judged(converged(10.0), converged(10.0), require="jacobian_zero < 1").exit_code == 3
    check = dataclasses.replace(measurements().self_check, passed=False, reason="not symmetric")
    blind = seen("descending", lambda_max=est(10.0, 0.1), self_check=check)
    assert judged(converged(10.0), blind, require="lambda_max < 5").exit_code == 3


# ---------------------------------------------------------------- keys


def test_keys_are_relative_inside_the_folder_and_as_given_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Baseline(folder=tmp_path / "project")
    (tmp_path / "project" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "runs")
    assert base.key("a.safetensors", None) == "runs/a.safetensors"
    assert base.key("./a.safetensors", None) == "runs/a.safetensors"
    assert base.key(str(tmp_path / "project" / "runs" / "a.safetensors"), None) == "runs/a.safetensors"
    assert base.key("a.safetensors", 3) == "runs/a.safetensors#seed=3"
    assert base.key("../../elsewhere/a.safetensors", None) == "../../elsewhere/a.safetensors"
    assert base.key("/x/a.safetensors", None) == "/x/a.safetensors"
    assert base.key(str(tmp_path / "projects" / "a"), None) == str(tmp_path / "projects" / "a")
    os.symlink(tmp_path / "project", tmp_path / "link")
    assert base.key(str(tmp_path / "link" / "runs" / "a.safetensors"), None) == "runs/a.safetensors"


def test_seeds_are_known_apart() -> None:
    subject = seen("bounce")
    gate = Gate(fail_on=parse_fail_on("any"), baseline=EMPTY)
    known = dataclasses.replace(gate, baseline=EMPTY.merged(gate.noted(subject, seed=1)))
    assert known.judge(subject, seed=1).exit_code == 0
    assert known.judge(subject, seed=2).exit_code == 1
    assert known.judge(subject).exit_code == 1


# ---------------------------------------------------------------- updating


def test_an_update_accepts_what_there_is_now() -> None:
    gate = Gate(fail_on=parse_fail_on("any"), requirements=parse_requirements("lambda_max < 1"), baseline=EMPTY)
    outcome = gate.judge_updated(seen("bounce"))
    assert outcome.exit_code == 0
    assert {hit.name for hit in outcome.accepted} == {"bounce", "lambda_max < 1"}
    assert gate.judge_updated(failed(3)).exit_code == 3
    assert gate.judge_updated(seen("undecided")).exit_code == 3


def test_failures_never_enter() -> None:
    gate = Gate(baseline=EMPTY)
    assert gate.noted(failed(3)) == {}
    assert Gate().noted(seen("bounce")) == {}
    known = EMPTY.merged(gate.noted(seen("bounce")))
    assert known.merged(gate.noted(failed(3))) == known


def test_the_gate_without_a_baseline_is_as_it_was() -> None:
    outcome = gate_of(seen("saddle-attraction")).judge(seen("saddle-attraction"))
    assert outcome.exit_code == 1
    assert outcome.hits[0].message == finding("saddle-attraction").message


# ---------------------------------------------------------------- numbers


def level(value: float | None, error: float = 0.0, worse: int = 1) -> Level:
    low, high = (-math.inf, math.inf) if value is None else (value - error, value + error)
    return Level(name="x", value=value, low=low, high=high, worse=worse)


@pytest.mark.parametrize(
    ("now", "value", "error", "worse"),
    [
        (level(1.0), 1.0, 0.0, False),
        (level(1.0 + 0.5 * REPRODUCIBLE), 1.0, 0.0, False),
        (level(1.0 + 5 * REPRODUCIBLE), 1.0, 0.0, True),
        (level(1.3, 0.1), 1.0, 0.19, True),
        (level(1.3, 0.1), 1.0, 0.21, False),
        (level(0.7, 0.1, -1), 1.0, 0.19, True),
        (level(0.7, 0.1, -1), 1.0, 0.21, False),
        (level(9.0), 1.0, math.inf, False),
        (level(9.0, math.inf), 1.0, 0.0, False),
        (level(None), 1.0, 0.0, False),
        (level(9.0), None, 0.0, False),
        (level(9.0), 1.0, math.nan, False),
        (Level(name="x", value=math.inf, low=math.inf, high=math.inf, worse=1), 1.0, 0.0, True),
        (Level(name="x", value=math.inf, low=math.inf, high=math.inf, worse=1), math.inf, 0.0, False),
        (level(-1e-12), 0.0, 0.0, False),
    ],
)
def test_worse_by_more_than_both_errors(now: Level, value: float | None, error: float, worse: bool) -> None:
    assert is_worse(now, value, error) is worse


def test_the_radius_carries_the_error_of_what_divides_it() -> None:
    """rho_eff = rho/√(|g|² + tr C/m): at most the relative error of |g|, or half of that of tr C."""
    exact: dict[str, Any] = {"lambda_min": est(-2.0), "effective_radius": 1.5}
    by_gradient = harm(seen("saddle-slowdown", grad_norm=est(0.1, 0.01), **exact), "saddle-slowdown")
    assert by_gradient == Level(
        name="radius_times_lambda_min", value=3.0, low=pytest.approx(2.7), high=pytest.approx(3.3), worse=1
    )
    noisy = seen("saddle-slowdown", grad_norm=est(0.1), noise_trace=Estimate(value=8.0, error=1.6), ascent_noise=1.0, **exact)  # fmt: skip # noqa: E501
    by_noise = harm(noisy, "saddle-slowdown")
    assert by_noise is not None
    assert (by_noise.low, by_noise.high) == pytest.approx((2.7, 3.3))
    usam = harm(seen("saddle-slowdown", variant="usam", grad_norm=est(0.1, 0.01), **exact), "saddle-slowdown")
    assert usam is not None
    assert usam.low == usam.high == 3.0
    flat = seen("saddle-slowdown", grad_norm=est(0.0), effective_radius=math.inf, lambda_min=est(-2.0))
    at_rest = harm(flat, "saddle-slowdown")
    assert at_rest is not None
    assert not is_worse(at_rest, 3.0, 0.0)  # |g| = 0 leaves its error unknown


@given(st.floats(allow_nan=False), st.floats(0, 1e300), st.sampled_from([1, -1]))
def test_no_number_is_worse_than_itself_in_the_file(value: float, error: float, worse: int) -> None:
    """Six digits of a value and two of an error, rounded up, lose nothing that would make it worse."""
    now = level(value, error, worse)
    assert not is_worse(now, _short(value), _up(now.error))


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.floats(-1e9, 1e9), st.floats(0, 1e9), st.sampled_from([1, -1]))
def test_only_one_of_two_is_worse(one: float, error: float, other: float, doubt: float, worse: int) -> None:
    first, second = level(one, error, worse), level(other, doubt, worse)
    both = is_worse(first, second.value, second.error), is_worse(second, first.value, first.error)
    assert both != (True, True)
    apart = abs(one - other)
    if any(both):
        assert apart > error + doubt  # beyond both error bounds
    elif apart > error + doubt + 2 * REPRODUCIBLE * max(abs(one), abs(other)):
        assert apart <= (error + doubt) * (1 + 1e-9)  # rounding of the sums alone
