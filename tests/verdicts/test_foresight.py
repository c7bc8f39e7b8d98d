"""What a forecast may change: what the linear tests leave open, and a capture that the run leaves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from samdiag.types import Confidence, Direction, Finding, Forecast, Measurements
from samdiag.verdicts import judge_all

from .samples import FAILED, bouncing, est, measurements, saddle

SADDLES = {"saddle-attraction", "saddle-slowdown", "saddle-escaping"}


def forecast(outcome: str, steps: int = 10_000) -> Forecast:
    return Forecast(outcome=outcome, steps=steps)


def verdict(m: Measurements) -> Finding:
    return judge_all(m)[0]


def fading(outcome: str | None, **changes: Any) -> Measurements:
    """lam −0.5 free at rho_eff 1.5, but its own gradient is a fiftieth of |g|: captured once the rest has died down."""
    bottom = Direction(eigenvalue=est(-0.5), effective_radius=1.5, offset=0.02 / 3)
    values = {
        "radius": 1.5,
        "grad_norm": est(1 / 3),
        "bottom_directions": (bottom,),
        "forecast": forecast(outcome) if outcome else None,
    }
    return saddle(est(-0.5), **(values | changes))


def test_a_fate_that_hangs_on_what_the_gradient_becomes_is_settled() -> None:
    assert verdict(fading(None)).verdict == "undecided"
    stays, leaves = verdict(fading("stays")), verdict(fading("leaves", lr=0.01))
    assert (stays.verdict, stays.confidence) == ("saddle-attraction", Confidence.MEDIUM)
    assert "does not leave in 10000 steps" in stays.message
    assert stays.evidence["forecast"] == "stays"
    assert leaves.verdict in ("saddle-slowdown", "saddle-escaping")
    assert leaves.confidence is Confidence.MEDIUM
    assert "leaves within 10000 steps" in leaves.message


def test_where_runs_near_by_disagree_nothing_is_said() -> None:
    finding = verdict(fading("open"))
    assert finding.verdict == "undecided"
    assert "disagree" in finding.message


def test_a_forecast_overrules_a_capture_by_the_linear_test() -> None:
    """rho_eff·|lam| = 30 at this point, but the run leaves: along a longer cycle, say."""
    assert verdict(measurements()).verdict == "saddle-attraction"
    assert verdict(measurements(forecast=forecast("stays"))).confidence is Confidence.HIGH
    assert verdict(measurements(forecast=forecast("leaves", 700))).verdict in ("saddle-slowdown", "saddle-escaping")
    assert verdict(measurements(forecast=forecast("open"))).verdict == "undecided"


def test_the_slowdown_of_an_overruled_capture_is_that_of_the_steps() -> None:
    """SGD needs ln(0.25/0.001·…) steps from the same offset; ten times as many are ten times slower."""
    few, many = (verdict(measurements(forecast=forecast("leaves", n))).evidence["slowdown"] for n in (5000, 50_000))
    assert isinstance(few, float)
    assert isinstance(many, float)
    assert many == pytest.approx(10 * few)
    plain = 5000 / few  # steps of the recurrence x ← x + lr·|lam|·x with momentum 0.5 over the way from 0.001 to 0.25
    offset, distance, v, count = 0.001 / 0.5, 0.5, 0.0, 0
    while offset < distance:
        v = 0.5 * v - 0.5 * offset
        offset -= 0.01 * v
        count += 1
    assert plain == pytest.approx(count, abs=1)


@pytest.mark.parametrize("outcome", ["stays", "open"])
def test_a_direction_that_its_own_gradient_frees_is_not_held_by_a_forecast(outcome: str) -> None:
    """All of |g| lies along it, at rho_eff·|lam| = 0.5: it leaves whatever else happens, maybe after the horizon."""
    m = saddle(est(-0.5), radius=1.0, lr=0.01)
    assert verdict(m).verdict == verdict(dataclasses.replace(m, forecast=forecast(outcome))).verdict
    assert verdict(m).verdict in ("saddle-slowdown", "saddle-escaping")


def test_what_is_left_too_slowly_to_count_is_held_where_the_run_stays() -> None:
    """A free direction a ten-thousandth as negative as the captured one, which alone would be a slowdown."""
    weak = Direction(eigenvalue=est(-5e-5), effective_radius=60.0, offset=0.008)
    strong = Direction(eigenvalue=est(-0.5), effective_radius=60.0, offset=0.001)
    m = measurements(bottom_directions=(strong, weak), bottom_eigenvalues=(est(-0.5), est(-5e-5)))
    assert verdict(m).verdict == "saddle-slowdown"
    held = verdict(dataclasses.replace(m, forecast=forecast("stays")))
    assert held.verdict == "saddle-attraction"
    assert "times slower than by SGD" in held.message


@pytest.mark.parametrize("outcome", ["stays", "leaves", "open"])
def test_a_negative_eigenvalue_whose_bar_contains_0_gives_no_saddle_verdict(outcome: str) -> None:
    wide = est(-0.5, 0.0, 0.3)
    m = saddle(wide, forecast=forecast(outcome))
    assert not {f.verdict for f in judge_all(m)} & SADDLES


@pytest.mark.parametrize("outcome", ["stays", "leaves", "open"])
@pytest.mark.parametrize("change", [{"variant": "gsam"}, {"variant": "asam"}, {"self_check": FAILED}])
def test_a_forecast_for_another_update_or_a_failed_check_changes_nothing(change: dict[str, Any], outcome: str) -> None:
    without = [f.verdict for f in judge_all(fading(None, **change))]
    assert [f.verdict for f in judge_all(fading(outcome, **change))] == without


def test_far_from_the_saddle_a_forecast_of_capture_is_no_verdict_yet() -> None:
    """rho_eff·|lam| = 0.02: the run is on its way down, wherever that ends."""
    m = fading("stays", radius=0.04, grad_norm=est(12.5), lookahead_loss=2.2)
    bottom = Direction(eigenvalue=est(-0.5), effective_radius=0.04, offset=0.01)
    assert not {f.verdict for f in judge_all(dataclasses.replace(m, bottom_directions=(bottom,)))} & SADDLES


def test_a_bounce_that_leaves_the_saddle_makes_room_for_what_leaves() -> None:
    low = est(-0.5)
    bottom = Direction(eigenvalue=low, effective_radius=0.3, offset=1e-3)
    there = {"lambda_min": low, "bottom_eigenvalues": (low,), "bottom_directions": (bottom,), "loss_lower_bound": None}
    m = bouncing(**there)
    assert "bounce" in {f.verdict for f in judge_all(m)}
    assert "bounce" not in {f.verdict for f in judge_all(dataclasses.replace(m, forecast=forecast("leaves", 400)))}
    [kept] = [f for f in judge_all(dataclasses.replace(m, forecast=forecast("open"))) if f.verdict == "bounce"]
    assert "open" in kept.message
    assert kept.evidence["forecast"] == "open"


def test_the_floor_makes_no_claim_against_the_forecast() -> None:
    floor: dict[str, Any] = {
        "top": est(4.0),
        "radius": 1.0,
        "lookahead_loss": 2.3,
        "lookahead_loss_sgd": 2.29,
        "gradient_ratio": est(1.5),
    }
    m = saddle(est(0.5), **floor)
    assert verdict(m).verdict == "convergence-floor"
    for outcome in ("leaves", "open"):
        names = {f.verdict for f in judge_all(dataclasses.replace(m, forecast=forecast(outcome)))}
        assert "convergence-floor" not in names
