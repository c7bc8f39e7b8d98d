"""The recommended learning rate is stable where the present one is not, and is recommended only where it has to be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from samdiag.advice import learning_rate, prescribe
from samdiag.advice.situation import Situation
from samdiag.theory.edge import bounce_amplitude
from samdiag.types import Measurements
from samdiag.verdicts import judge_all

from ..theory.simulate import heavy_ball, sam, usam
from ..verdicts.samples import bouncing, est, hallucinated, measurements, minimum, saddle
from .situations import said

KINDS = [{"momentum": 0.0}, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}, {"momentum": 0.5, "dampening": 0.5}]


def recommended(m: Measurements) -> float:
    advice = prescribe(m, said("unstable")).lr
    assert advice is not None
    assert advice.recommended is not None
    assert advice.interval is not None
    assert advice.interval[0] <= advice.recommended < advice.interval[1]
    assert advice.recommended < (advice.current or 0.0)
    return advice.recommended


@pytest.mark.parametrize("options", KINDS)
def test_usam_is_stable_at_the_recommended_rate_and_not_beyond_the_edge(options: dict[str, float]) -> None:
    """The largest eigenvalue with SAM's own mu = lam(1 + rho·lam), for every kind of momentum."""
    lam, rho = 20.0, 0.05
    m = saddle(est(0.5), radius=rho, variant="usam", top=est(lam), lr=3.0, **options)
    assert judge_all(m)[0].verdict == "unstable"
    lr = recommended(m)
    p = prescribe(m, judge_all(m))
    assert p.schedule is not None
    assert p.schedule.kind == "lower-lr"
    assert [phase.lr for phase in p.schedule.phases] == [lr]

    def end(rate: float) -> float:
        eta = rate * (1 - options.get("dampening", 0.0))
        momentum, nesterov = options["momentum"], bool(options.get("nesterov"))
        x = heavy_ball(
            usam(np.array([lam]), rho), np.array([1.0]), lr=eta, momentum=momentum, nesterov=nesterov, steps=600
        )
        return float(abs(x[0]))

    assert end(lr) < 1e-3
    assert not end(lr / learning_rate.EDGE_MARGIN * 1.02) < 1e3


@pytest.mark.parametrize("radius", [0.001, 0.3, 100.0])
def test_normalised_sam_stays_within_a_bounce_no_wider_than_rho(radius: float) -> None:
    """Beyond plain gradient descent's edge it is thrown away; at the recommended rate it settles on |x| ≤ rho."""
    lam, rho = 20.0, 0.5
    m = saddle(est(0.5), radius=radius, rho=rho, top=est(lam), lr=0.2, momentum=0.0)
    lr = recommended(m)
    update, x = sam(np.array([lam]), rho), np.array([1.0])
    ends = [heavy_ball(update, x, lr=rate, steps=steps) for rate, steps in ((0.2, 50), (lr, 600))]
    assert not abs(ends[0][0]) < 1e3
    assert abs(ends[1][0]) == pytest.approx(bounce_amplitude(lam, rho, lr, 0.0), rel=1e-6)
    own = 2 / (lam * (1 + radius * lam))
    assert lr >= learning_rate.EDGE_MARGIN * own * (1 - 1e-9)
    if radius > 0.05:  # its own edge would cost more than half of the rate
        assert abs(ends[1][0]) <= rho


def test_a_saddle_beyond_the_edge_gets_the_learning_rate_first() -> None:
    m = saddle(est(-0.5), top=est(400.0), lr=0.01, momentum=0.0)
    p = prescribe(m, said("saddle-attraction"))
    assert p.lr is not None
    assert p.schedule is not None
    assert p.schedule.kind == "lower-lr"
    assert p.missing == ()


@pytest.mark.parametrize("build", [measurements, minimum, hallucinated, bouncing])
def test_below_the_edge_it_stays(build: object) -> None:
    m = build()  # type: ignore[operator]
    assert prescribe(m, judge_all(m)).lr is None


def test_usam_beyond_its_own_edge_alone_may_keep_its_rate_and_lower_rho_or_the_other_way() -> None:
    m = saddle(est(0.5), radius=0.5, variant="usam", top=est(10.0), lr=0.12, momentum=0.0)
    p = prescribe(m, said("unstable"))
    assert p.lr is None
    assert p.rho.recommended is not None
    assert p.schedule is not None
    assert [phase.rho for phase in p.schedule.phases] == [p.rho.recommended]
    (other,) = p.alternatives
    assert other.kind == "lower-lr"
    assert (
        abs(heavy_ball(usam(np.array([10.0]), 0.5), np.array([1.0]), lr=other.phases[0].lr or 0, steps=400)[0]) < 1e-3
    )


def test_a_rate_too_small_to_leave_in_time_is_raised() -> None:
    """At lr 1e-7 plain steps need more than 100 000 of them; a twentieth of the edge does it."""
    m = saddle(est(-0.5), lr=1e-7, momentum=0.0)
    across = dataclasses.replace(m.bottom_directions[0], offset=1e-4 * (m.grad_norm.value or 0.0))
    m = dataclasses.replace(m, bottom_directions=(across,))
    p = prescribe(m, said("saddle-attraction"))
    assert p.lr is not None
    assert p.lr.recommended == pytest.approx(0.1)
    assert p.missing == ()
    assert p.schedule is not None
    assert p.schedule.steps is not None
    first, rest = p.schedule.phases
    assert first.lr == p.lr.recommended
    assert (rest.lr or 0.0) >= p.lr.recommended
    assert Situation.of(m).m.lr == 1e-7
