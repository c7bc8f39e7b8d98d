"""Where a verdict may change: only when a threshold enters or leaves the error bars."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from samdiag.theory.edge import stability_edge
from samdiag.types import Confidence, Measurements, Severity
from samdiag.verdicts import judge_all

from .samples import FAILED, Estimate, bouncing, est, hallucinated, measurements, minimum, saddle

SADDLES = {"saddle-attraction", "saddle-slowdown", "saddle-escaping"}
CURVATURE = SADDLES | {"unstable", "hallucinated-minimizer", "hallucinated-point", "minimum", "convergence-floor"}


def verdict(m: Measurements) -> str:
    return judge_all(m)[0].verdict


def names(m: Measurements) -> set[str]:
    return {f.verdict for f in judge_all(m)}


def changes(sequence: list[str]) -> list[str]:
    """The sequence without repetitions in a row."""
    return [v for i, v in enumerate(sequence) if i == 0 or v != sequence[i - 1]]


@pytest.mark.parametrize("share", ["error", "sampling"])
def test_a_growing_error_bar_takes_the_verdict_away_once_and_for_good(share: str) -> None:
    """lambda_min −0.5 at rho_eff 60: the capture threshold −1/60 enters the bar before 0 does."""
    widths = np.linspace(0.0, 1.2, 60)
    bars = [est(-0.5, w) if share == "error" else est(-0.5, 0.0, w / 2) for w in widths]
    sequence = [names(saddle(bar)) & SADDLES for bar in bars]
    decided = [bool(s) for s in sequence]
    assert changes([str(d) for d in decided]) == ["True", "False"]
    for bar, said in zip(bars, decided, strict=True):
        if bar.high >= -1 / 60:
            assert not said
        if bar.high < -1.2 / 60:
            assert said


@pytest.mark.parametrize("variant", ["sam", "usam", "asam"])
@pytest.mark.parametrize("error", [0.0, 0.02, 0.2])
def test_crossing_the_capture_threshold_passes_through_undecided(variant: str, error: float) -> None:
    """|lam| from free to captured at rho_eff = 2: slowed, undecided while 1/2 lies in the bar, captured."""
    lams = np.linspace(0.25, 1.2, 191)
    sequence = [verdict(saddle(est(-v, error), radius=2.0, variant=variant, top=est(0.1), rho=0.02)) for v in lams]
    assert changes(sequence) == ["saddle-escaping", "saddle-slowdown", "undecided", "saddle-attraction"] or changes(
        sequence
    ) == ["saddle-slowdown", "undecided", "saddle-attraction"]
    for v, said in zip(lams, sequence, strict=True):
        if v - error <= 0.5 <= v + error:
            assert said == "undecided"
        if v - error > 0.5 * 1.06:
            assert said == "saddle-attraction"
        if v + error < 0.5 * 0.94:
            assert said in ("saddle-slowdown", "saddle-escaping")


def test_no_saddle_verdict_while_zero_lies_in_the_bar() -> None:
    rng = np.random.default_rng(0)
    for _ in range(400):
        lam = -float(10 ** rng.uniform(-4, 2))
        bar = est(lam, abs(lam) * float(rng.uniform(0.5, 3)), float(rng.choice([0.0, rng.uniform(0, abs(lam))])))
        radius = float(rng.choice([10 ** rng.uniform(-2, 4), math.inf]))
        m = saddle(
            bar,
            radius=radius,
            variant=str(rng.choice(["sam", "usam"])) if math.isfinite(radius) else "sam",
            spectrum_complete=bool(rng.integers(2)),
            lr=float(10 ** rng.uniform(-4, -1)),
        )
        said = names(m) & SADDLES
        if bar.high >= 0:
            assert not said, (bar, radius)


def free_and_captured(bar: Estimate, radius: float, weight_decay: float) -> tuple[bool, bool]:
    """Whether some curvature inside the bar is free, and whether some is captured, on a fine grid."""
    lam = np.linspace(bar.low, bar.high, 2001)
    mu = lam * (1 + radius * lam) + weight_decay
    return bool((mu < 0).any()), bool((mu > 0).any())


def test_a_bar_that_allows_both_fates_decides_neither() -> None:
    rng = np.random.default_rng(1)
    both = 0
    for _ in range(600):
        lam = -float(10 ** rng.uniform(-1, 1))
        bar = est(lam, abs(lam) * float(rng.uniform(0, 0.95)))
        radius = float(10 ** rng.uniform(-0.5, 0.5)) / abs(lam)
        m = saddle(bar, radius=radius, variant="usam", top=est(1e-3), lr=1e-3, loss_lower_bound=None)
        free, captured = free_and_captured(bar, radius, 0.0)
        said = names(m) & SADDLES
        if free and captured:
            both += 1
            assert not said
        elif captured:
            assert said <= {"saddle-attraction"}
        else:
            assert said <= {"saddle-slowdown", "saddle-escaping"}
    assert both > 100


def test_with_weight_decay_a_bar_free_in_the_middle_is_not_captured() -> None:
    """mu = lam(1 + rho·lam) + wd is > 0 at both ends of [−1.95, −0.05] and −0.3 at −1: the direction itself is free."""
    bar = est(-1.0, 0.95)
    assert free_and_captured(bar, 0.6, 0.1) == (True, True)
    m = saddle(bar, radius=0.6, variant="usam", top=est(1e-3), lr=1e-3, weight_decay=0.1, loss_lower_bound=None)
    assert "saddle-attraction" not in names(m)


def test_usam_with_an_eigenvalue_around_zero_is_not_unstable() -> None:
    """lam in [−4.5, 1.5], rho 1: eta·mu is 15.75 and 3.75 at the ends, above 2, but ≤ 0 for lam in [−1, 0]."""
    bar = est(-1.5, 3.0)
    assert free_and_captured(bar, 1.0, 0.0) == (True, True)
    assert "unstable" not in names(saddle(bar, radius=1.0, variant="usam", top=est(0.1), lr=1.0, momentum=0.0))


def test_any_direction_whose_bar_reaches_over_the_edge_forbids_a_minimum() -> None:
    """eta·lam = 1.9 exactly, and 1.85 ± 0.5: the second one may be unstable, so the point is not a stable minimum."""
    m = minimum(lr=1.0, momentum=0.0)
    second = dataclasses.replace(m.top_directions[0], eigenvalue=est(1.85, 0.5))
    first = dataclasses.replace(m.top_directions[0], eigenvalue=est(1.9))
    m = dataclasses.replace(m, top_directions=(first, second), lambda_max=est(1.9))
    assert verdict(m) != "minimum"


def test_a_direction_that_sgd_does_not_leave_either_is_no_attraction_by_sam() -> None:
    """lam −0.01 with weight decay 0.1: lam + wd > 0, so plain gradient descent stays as well, whatever rho is."""
    m = saddle(est(-0.01), radius=0.5, variant="usam", weight_decay=0.1, loss_lower_bound=None)
    assert "saddle-attraction" not in names(m)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_unstable_only_beyond_the_edge_and_its_bar(momentum: float) -> None:
    edge = stability_edge(momentum)
    for error in (0.0, 0.1, 0.5):
        sequence = []
        for lam in np.linspace(edge - 1, edge + 1, 41):
            top = est(float(lam), error)
            m = minimum(top=top, lr=1.0, momentum=momentum)
            sequence.append(verdict(m))
            assert (sequence[-1] == "unstable") is (top.low > edge)
            assert (sequence[-1] == "minimum") is (top.high < edge)
        assert set(changes(sequence)) <= {"minimum", "undecided", "unstable"}
        assert changes(sequence)[0] == "minimum"
        assert changes(sequence)[-1] == "unstable"


def test_hallucination_only_when_the_ratio_and_its_bar_are_below_a_tenth() -> None:
    sequence = []
    ratios = np.linspace(0.0, 0.3, 61)
    for value in ratios:
        ratio = est(float(value), 0.0, 0.02)
        sequence.append(verdict(hallucinated(update_ratio=ratio, gradient_ratio=ratio)))
        assert (sequence[-1] == "hallucinated-minimizer") is (ratio.high < 0.1)
        if ratio.low < 0.1 and ratio.high >= 0.1 and value < 0.1:
            assert sequence[-1] == "undecided"
    assert [v for v in changes(sequence) if v == "hallucinated-minimizer"] == ["hallucinated-minimizer"]


def test_hallucination_needs_every_live_mode_to_be_stable() -> None:
    for values, expected in (
        (((2.0, 0.0), (0.0, 0.0)), "hallucinated-minimizer"),
        (((2.0, 0.5), (2.0, -0.5)), "hallucinated-minimizer"),
        (((2.0, 0.0), (-0.1, 0.0)), "hallucinated-point"),
        (((0.1, 30.0), (0.1, -30.0)), "hallucinated-point"),
        (((0.0, 0.0),), "hallucinated-point"),
    ):
        assert verdict(hallucinated(jacobian_eigenvalues=values)) == expected


def test_a_bounce_needs_the_ratio_the_rise_and_the_flip() -> None:
    assert verdict(bouncing()) == "bounce"
    for change in (
        {
            "gradient_ratio": est(2.1, 0.2),
            "lookahead_loss": 1 / 360,
        },  # a descent with large steps flips too
        {"gradient_ratio": est(1.9), "lookahead_loss": 1 / 360},
        {"gradient_ratio": est(0.9)},
        {"loss_change": est(0.01, 0.02)},
        {"lookahead_cosine": -0.4},
        {"lookahead_cosine": None},
        {"variant": "usam", "radius": 0.3},
    ):
        assert "bounce" not in names(bouncing(**change))
    assert "bounce" in names(bouncing(gradient_ratio=est(2.3, 0.2)))
    assert "bounce" in names(bouncing(gradient_ratio=est(1.4)))  # between half the stability edge and the edge (A9)


def test_a_degenerate_critical_point_is_undecided() -> None:
    for lam in (est(0.0, 1e-15), est(-1e-16, 1e-15), est(1e-16, 1e-15)):
        m = minimum(loss_lower_bound=None)
        direction = dataclasses.replace(m.bottom_directions[0], eigenvalue=lam)
        m = dataclasses.replace(m, lambda_min=lam, bottom_directions=(direction,), bottom_eigenvalues=(lam,))
        assert verdict(m) == "undecided"


def test_materiality_a_nearly_finished_run_is_not_held() -> None:
    """Loss 0.019, lambda_min −0.025, rho_eff|lam| 2.2: captured, but SAM lowers the loss and SGD is slow too."""
    m = saddle(est(-0.025), radius=88.0, rho=0.05, loss=est(0.019), lookahead_loss=0.019 * (1 - 4e-4), top=est(4.0))
    assert "saddle-attraction" not in names(m)
    slow = saddle(est(-0.025), radius=88.0, rho=0.05, loss=est(0.019), lookahead_loss=0.019, lr=0.01, momentum=0.5)
    assert "saddle-attraction" not in names(slow)


def test_materiality_a_stuck_run_is_held() -> None:
    """Loss 2.3, lambda_min −0.5, rho_eff|lam| 30."""
    assert verdict(measurements()) == "saddle-attraction"
    assert judge_all(measurements())[0].severity is Severity.ERROR


def test_materiality_a_run_that_moves_on_is_not_held() -> None:
    assert "saddle-attraction" not in names(measurements(lookahead_loss=2.3 - 1e-3))
    assert "saddle-attraction" in names(measurements(lookahead_loss=2.3 - 1e-3, loss_lower_bound=None))


def test_a_loss_at_its_lower_bound_has_no_saddle_to_leave() -> None:
    assert not names(measurements(loss=est(5e-7), lookahead_loss=5e-7)) & SADDLES


def test_order_of_harm_puts_the_worse_finding_first() -> None:
    m = saddle(est(-0.5), top=est(400.0), lr=0.01, momentum=0.0)
    assert verdict(m) == "unstable"
    both = measurements(lookahead_loss=2.29999, loss_lower_bound=None)
    assert [f.verdict for f in judge_all(both)] == ["saddle-attraction", "descending"]


@pytest.mark.parametrize("build", [measurements, minimum, hallucinated])
def test_a_failed_self_check_says_so_first(build: object) -> None:
    m = build(self_check=FAILED)  # type: ignore[operator]
    assert verdict(m) == "undecided"
    assert "not symmetric" in judge_all(m)[0].message
    assert not names(m) & (SADDLES | {"unstable", "hallucinated-minimizer", "hallucinated-point"})


def test_a_failed_self_check_silences_instability() -> None:
    m = saddle(est(0.5), top=est(400.0), lr=0.01, momentum=0.0)
    assert verdict(m) == "unstable"
    assert "unstable" not in names(dataclasses.replace(m, self_check=FAILED))


def test_a_failed_self_check_silences_the_minimum() -> None:
    assert "minimum" not in names(minimum(self_check=FAILED))


def test_a_failed_self_check_silences_the_floor() -> None:
    m = saddle(est(0.5), top=est(4.0), radius=1.0, lookahead_loss=2.3, lookahead_loss_sgd=2.29, gradient_ratio=est(1.5))
    assert verdict(m) == "convergence-floor"
    assert verdict(dataclasses.replace(m, self_check=FAILED)) == "undecided"


def test_doubts_lower_the_confidence() -> None:
    assert judge_all(measurements())[0].confidence is Confidence.HIGH
    assert judge_all(measurements(quadratic_error=0.8))[0].confidence is Confidence.MEDIUM
    assert judge_all(measurements(quadratic_error=0.8, variant="asam"))[0].confidence is Confidence.LOW


def test_a_trend_within_the_noise_of_the_trial_decides_nothing() -> None:
    """SAM's trial falls by 1e-3 less than SGD's: a floor if that is certain, nothing if the noise is as large."""
    floor = {"loss": est(0.2), "lookahead_loss": 0.2, "lookahead_loss_sgd": 0.199, "gradient_ratio": est(1.5)}
    quiet = saddle(est(0.5), top=est(4.0), radius=1.0, **floor)
    noisy = dataclasses.replace(quiet, lookahead_error=1e-3, lookahead_error_sgd=1e-3)
    assert "convergence-floor" in names(quiet)
    assert "convergence-floor" not in names(noisy)


def test_batch_norm_takes_the_edge_off_what_is_said_about_next_steps() -> None:
    unstable = saddle(est(0.5), top=est(400.0), lr=0.01)
    assert judge_all(unstable)[0].severity is Severity.ERROR
    normed = judge_all(dataclasses.replace(unstable, batch_norm=True))[0]
    assert (normed.verdict, normed.severity) == ("unstable", Severity.WARNING)
    bounce = judge_all(dataclasses.replace(bouncing(), batch_norm=True))[0]
    assert (bounce.verdict, bounce.severity) == ("bounce", Severity.INFO)
