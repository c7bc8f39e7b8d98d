"""What is recommended, what is not, and that each says why."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samdiag.advice import prescribe
from samdiag.remedies import Advice, Prescription, Schedule
from samdiag.theory.edge import stability_edge
from samdiag.types import VERDICTS_BY_HARM, Measurements
from samdiag.verdicts import judge_all

from ..theory.simulate import heavy_ball, usam
from ..verdicts.samples import bouncing, est, hallucinated, measurements, minimum, reachable, saddle
from .situations import said

BINDING = {
    None,
    "saddle trap",
    "edge of stability",
    "ridge",
    "convergence floor",
    "noise temperature",
    "escape speed",
    "0.99",
}
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def advise(m: Measurements) -> Prescription:
    return prescribe(m, judge_all(m))


def advices(p: Prescription) -> tuple[Advice, ...]:
    return p.rho, p.momentum, p.batch_size


def check(p: Prescription, m: Measurements) -> None:
    for advice in advices(p):
        assert advice.reason.strip()
        assert advice.source.strip()
        assert advice.binding in BINDING
        if advice.recommended is not None and advice.interval is not None:
            low, high = advice.interval
            assert low <= advice.recommended <= high * (1 + 1e-12)
    if p.rho.recommended is not None:
        assert 0 < p.rho.recommended <= m.rho
    if p.momentum.recommended is not None:
        assert m.momentum <= p.momentum.recommended < 1
    assert p.escape_steps is None or p.escape_steps >= 0
    for schedule in (p.schedule, *p.alternatives):
        if schedule is not None:
            check_schedule(schedule, m)
    assert p.schedule is not None or not p.alternatives
    assert not (p.schedule is not None and p.missing)


def check_schedule(schedule: Schedule, m: Measurements) -> None:
    assert schedule.effect
    assert schedule.risk
    assert schedule.source
    assert schedule.steps is None or schedule.steps >= 0
    assert [phase.steps is None for phase in schedule.phases] == [False] * (len(schedule.phases) - 1) + [True]
    for phase in schedule.phases:
        assert phase.steps is None or phase.steps >= 1
        assert 0 <= phase.rho <= m.rho
        assert phase.rho_end is None or 0 < phase.rho_end <= phase.rho
        assert phase.lr is None or 0 < phase.lr < math.inf
        assert phase.momentum is None or 0 <= phase.momentum < 1
        assert phase.batch_size is None or phase.batch_size >= 1
        assert phase.micro_batch is None or phase.micro_batch >= 1


@QUICK
@given(reachable())
def test_prescribe_answers_whatever_can_be_measured(m: Measurements) -> None:
    check(advise(m), m)


@QUICK
@given(reachable(), st.sampled_from(VERDICTS_BY_HARM))
def test_prescribe_answers_whatever_the_verdict(m: Measurements, verdict: str) -> None:
    p = prescribe(m, said(verdict))
    check(p, m)
    if verdict in ("saddle-attraction", "saddle-slowdown", "hallucinated-minimizer", "hallucinated-point", "undecided"):
        assert (p.schedule is None) == bool(p.missing)


@pytest.mark.parametrize("build", [measurements, minimum, hallucinated, bouncing])
def test_every_advice_has_a_reason_and_a_source(build: object) -> None:
    m = build()  # type: ignore[operator]
    check(advise(m), m)


def test_the_tightest_bound_is_the_binding_one_and_all_hold() -> None:
    """Three bounds made the tightest in turn; the recommendation obeys all of them."""
    for expected, changes in (
        ("saddle trap", {"ridge_distance": est(50.0), "lr": 0.01}),
        ("ridge", {"ridge_distance": est(1e-4), "lr": 0.01}),
        ("edge of stability", {"ridge_distance": est(50.0), "lr": 0.4, "top": est(7.0), "momentum": 0.9}),
    ):
        m = saddle(est(-0.5), **changes)
        advice = prescribe(m, said("saddle-attraction")).rho
        assert advice.binding == expected
        scale, top = m.rho / m.effective_radius, m.lambda_max.value or 0.0
        assert advice.recommended is not None
        assert advice.recommended <= 0.5 * scale / 0.5 * (1 + 1e-12)
        assert advice.recommended <= scale * (stability_edge(m.momentum) / (m.lr or 1) - top) / top**2 * (1 + 1e-12)
        assert advice.recommended <= 0.9 * (m.ridge_distance.value or 0.0) * (1 + 1e-12)


def test_a_hallucination_gets_a_rho_below_nine_tenths_of_the_ridge_and_that_leaves_it() -> None:
    """The double well at x_h = 0.5 with rho 1.5: the ridge is at 0, s* = 0.5."""
    m = hallucinated()
    advice = advise(m).rho
    assert advice.recommended is not None
    assert advice.recommended <= 0.9 * 0.5

    def run(rho: float) -> float:
        def update(x: np.ndarray) -> np.ndarray:
            g = x**3 - x
            shifted = x + rho * np.sign(g)
            return np.asarray(shifted**3 - shifted)

        return float(heavy_ball(update, np.array([0.5001]), lr=0.05, steps=4000)[0])

    assert run(1.5) == pytest.approx(0.5, abs=1e-3)
    assert run(advice.recommended) > 0.6


def test_the_ridge_scales_with_the_length_of_the_perturbation() -> None:
    """USAM's |e| = rho|g|: rho that brings |e| to 0.9 s*."""
    m = hallucinated(variant="usam", rho=4.0, radius=4.0, perturbation_norm=1.5)
    advice = prescribe(m, said("hallucinated-minimizer")).rho
    assert advice.recommended is not None
    assert advice.recommended * 1.5 / 4.0 <= 0.9 * 0.5 * (1 + 1e-12)


class TestNoRecommendation:
    """Theory D6: each case in which there is none, with its reason."""

    def test_without_a_negative_eigenvalue(self) -> None:
        for bottom in (est(0.2), est(-0.2, 0.5)):
            p = prescribe(saddle(bottom), said("saddle-attraction"))
            assert [a.recommended for a in advices(p)] == [None] * 3
            assert all("no negative eigenvalue beyond its error" in a.reason for a in advices(p))

    def test_beyond_the_edge_of_gradient_descent(self) -> None:
        m = saddle(est(-0.5), top=est(400.0), lr=0.01, momentum=0.0)
        for findings in (judge_all(m), said("saddle-attraction")):
            p = prescribe(m, findings)
            assert [a.recommended for a in advices(p)] == [None] * 3
            assert all("learning rate" in a.reason for a in advices(p))

    @pytest.mark.parametrize("lr", [None, 0.01])
    def test_full_batch_exactly_at_a_critical_point(self, lr: float | None) -> None:
        m = saddle(est(-0.5), radius=math.inf, grad_norm=est(0.0), perturbation_norm=0.0, lr=lr, lookahead_loss=None)
        assert judge_all(m)[0].verdict == "saddle-attraction"
        p = advise(m)
        assert p.rho.recommended is None
        assert p.momentum.recommended is None
        assert p.escape_steps is None
        assert "SGD or USAM" in p.rho.reason

    def test_neither_noise_nor_offset(self) -> None:
        m = saddle(est(-0.5))
        still = dataclasses.replace(m.bottom_directions[0], offset=0.0)
        p = prescribe(dataclasses.replace(m, bottom_directions=(still,)), said("saddle-attraction"))
        assert p.escape_steps is None
        assert p.rho.recommended is None
        assert "neither noise nor an offset" in p.rho.reason

    def test_no_momentum_below_one(self) -> None:
        """Half of SGD's rate is left at the recommended rho: eta|lam|/2 against (r0 − 1)²/r0, r0 SGD's factor."""
        for lr, momentum, feasible in ((0.9, 0.0, True), (3.0, 0.0, False), (0.1, 0.99, False), (0.01, 0.5, True)):
            m = saddle(est(-0.5), momentum=momentum, lr=lr, top=est(0.01))
            advice = prescribe(m, said("saddle-attraction")).momentum
            r0 = float(np.roots([1, -(1 + momentum + lr * 0.5), momentum]).max())
            assert (lr * 0.25 > (r0 - 1) ** 2 / r0) is feasible
            assert (advice.recommended is not None) is feasible
            if not feasible:
                assert "no momentum below 1" in advice.reason

    def test_momentum_of_a_captured_direction(self) -> None:
        from samdiag.advice.momentum import match
        from samdiag.advice.situation import Situation

        advice = match(Situation.of(measurements()), radius=60.0, batch_size=None)
        assert advice.recommended is None
        assert "momentum never frees" in advice.reason

    def test_a_batch_below_one_sample(self) -> None:
        m = saddle(est(-0.5), noise_trace=est(1e-6), batch_size=64, grad_norm=est(0.0))
        advice = prescribe(m, said("saddle-attraction")).batch_size
        assert advice.recommended is None
        assert "single sample" in advice.reason

    def test_a_batch_too_small_to_prescribe(self) -> None:
        m = saddle(est(-0.5), noise_trace=est(1.0), batch_size=64, grad_norm=est(0.0))
        advice = prescribe(m, said("saddle-attraction")).batch_size
        assert advice.recommended is None
        assert "below the 8" in advice.reason

    def test_batch_size_of_usam_and_asam_and_without_noise(self) -> None:
        known = {"noise_trace": est(100.0), "batch_size": 64}
        for changes, words in (
            ({"variant": "usam", **known}, "USAM"),
            ({"variant": "asam", **known}, "ASAM"),
            ({}, "single batch"),
            ({"noise_trace": est(0.0), "batch_size": 64}, "no noise"),
        ):
            advice = prescribe(saddle(est(-0.5), **changes), said("saddle-attraction")).batch_size
            assert advice.recommended is None
            assert words in advice.reason

    def test_an_escape_that_takes_too_long(self) -> None:
        m = saddle(est(-1e-7), radius=1e9, rho=1e3, lr=1e-4, momentum=0.0, top=est(1e-3))
        near = dataclasses.replace(m.bottom_directions[0], offset=1e-11)
        p = prescribe(dataclasses.replace(m, bottom_directions=(near,)), said("saddle-attraction"))
        assert p.escape_steps is None
        assert any("no escape predicted within" in note for note in p.notes)

    def test_without_lr(self) -> None:
        p = prescribe(measurements(lr=None, lookahead_loss=None), said("saddle-attraction"))
        assert p.momentum.recommended is None
        assert "--lr" in p.momentum.reason
        assert p.escape_steps is None

    def test_undecided(self) -> None:
        p = prescribe(measurements(), said("undecided"))
        assert [a.recommended for a in advices(p)] == [None] * 3


def late_growth(
    lam: float, rho: float, lr: float, momentum: float, weight_decay: float, *, nesterov: bool = False
) -> float:
    update = usam(np.array([lam]), rho, weight_decay)
    early, late = (
        heavy_ball(update, np.array([1.0]), lr=lr, momentum=momentum, steps=n, nesterov=nesterov)[0]
        for n in (900, 1000)
    )
    return math.log(late / early) / 100


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_the_recommended_momentum_restores_the_pace_of_sgd(weight_decay: float) -> None:
    m = saddle(est(-1.0), radius=2.0, variant="usam", lr=0.02, momentum=0.5, weight_decay=weight_decay, top=est(0.1))
    p = prescribe(m, said("saddle-attraction"))
    assert p.rho.recommended is not None
    assert p.momentum.recommended is not None
    with_advice = late_growth(-1.0, p.rho.recommended, 0.02, p.momentum.recommended, weight_decay)
    assert with_advice == pytest.approx(late_growth(-1.0, 0.0, 0.02, 0.5, weight_decay), rel=0.01)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_recommended_momentum_knows_nesterov_and_dampening(nesterov: bool, dampening: float) -> None:
    m = saddle(
        est(-1.0),
        radius=2.0,
        variant="usam",
        lr=0.05,
        momentum=0.5,
        nesterov=nesterov,
        dampening=dampening,
        top=est(0.1),
    )
    p = prescribe(m, said("saddle-attraction"))
    assert p.rho.recommended is not None
    assert p.momentum.recommended is not None
    step = 0.05 * (1 - dampening)
    with_advice = late_growth(-1.0, p.rho.recommended, step, p.momentum.recommended, 0.0, nesterov=nesterov)
    assert with_advice == pytest.approx(late_growth(-1.0, 0.0, step, 0.5, 0.0, nesterov=nesterov), rel=0.01)
    assert ("dampening" in p.momentum.reason) is (dampening > 0)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("nesterov", [False, True])
def test_rho_at_the_edge_knows_nesterov_and_dampening(nesterov: bool, dampening: float) -> None:
    """Just below the recommended rho the run is stable, 2 % above it is not."""
    lr = 0.12 / (1 - dampening)
    options = {"lr": lr, "momentum": 0.5, "nesterov": nesterov, "dampening": dampening}
    m = saddle(est(0.5), radius=0.5, variant="usam", top=est(10.0), **options)
    assert judge_all(m)[0].verdict == "unstable"
    rho = advise(m).rho.recommended
    assert rho is not None
    ends = [
        heavy_ball(
            usam(np.array([10.0]), share * rho), np.array([1.0]), lr=0.12, momentum=0.5, nesterov=nesterov, steps=3000
        )[0]
        for share in (0.98, 1.02)
    ]
    assert abs(ends[0]) < 1e-3
    assert not abs(ends[1]) < 1e3


@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_learning_rate_to_come_below_is_that_of_the_optimiser(nesterov: bool, dampening: float) -> None:
    m = saddle(est(0.5), top=est(400.0), lr=1.0, momentum=0.5, nesterov=nesterov, dampening=dampening)
    limit = stability_edge(0.5, nesterov=nesterov) / (1 - dampening) / 400
    assert f"lower it below {limit:.3g}" in advise(m).rho.reason


def test_with_micro_batches_the_micro_batch_shrinks() -> None:
    """The ascent's noise frees; the descent's batch, its noise and its temperature stay as they are."""
    noisy = {"noise_trace": est(64.0), "grad_norm": est(0.0), "rho": 0.5, "radius": 0.5 / math.sqrt(64 / 200)}
    whole = prescribe(saddle(est(-1.0), **noisy, batch_size=200, ascent_batch=200), said("saddle-slowdown"))
    micro = prescribe(
        saddle(est(-1.0), **noisy, batch_size=6400, micro_batch=200, ascent_batch=200), said("saddle-slowdown")
    )
    assert micro.batch_size.current == 200
    assert micro.batch_size.recommended == whole.batch_size.recommended
    assert "micro-batch" in micro.batch_size.reason
    few = saddle(est(-1.0), **noisy, batch_size=6400, micro_batch=32, ascent_batch=32)
    assert "already frees" in prescribe(few, said("saddle-slowdown")).batch_size.reason


@pytest.mark.parametrize("variant", ["asam", "asam-samsung"])
def test_no_batch_size_for_a_scaled_metric(variant: str) -> None:
    m = measurements(variant=variant, noise_trace=est(64.0), batch_size=200)
    advice = prescribe(m, said("saddle-attraction")).batch_size
    assert advice.recommended is None or advice.recommended == advice.current
    assert "ASAM" in advice.reason


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_rho_at_the_edge_of_stability_is_stable(weight_decay: float) -> None:
    m = saddle(est(0.5), radius=0.02, variant="usam", lr=0.19, momentum=0.0, weight_decay=weight_decay, top=est(10.0))
    assert judge_all(m)[0].verdict == "unstable"
    advice = advise(m).rho
    assert advice.binding == "edge of stability"
    assert advice.recommended is not None
    end = heavy_ball(
        usam(np.array([10.0]), 0.999 * advice.recommended, weight_decay), np.array([1.0]), lr=0.19, steps=500
    )
    assert abs(end[0]) < 1.0


@pytest.mark.parametrize("weight_decay", [0.0, 0.4])
def test_the_recommended_batch_keeps_half_the_rate_of_sgd(weight_decay: float) -> None:
    """rho_eff at the recommended B, as theory A7 has it, in the rate −mu = |lam|(1 − rho_eff|lam|) − wd."""
    noisy = {"noise_trace": est(64.0), "batch_size": 200, "grad_norm": est(0.0)}
    m = saddle(est(-1.0), radius=0.5 / math.sqrt(64 / 200), rho=0.5, weight_decay=weight_decay, **noisy)
    size = prescribe(m, said("saddle-slowdown")).batch_size.recommended
    assert size is not None
    radius = 0.5 / math.sqrt(64.0 / size)
    kept = (1 - radius) - weight_decay
    assert kept >= 0.5 * (1 - weight_decay) - 0.01
