"""Verdicts on random quadratics against what the simulated optimiser then does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samdiag.theory.edge import bounce_gradient

from .confusion import QUICK, example, page
from .quadratics import Case, examine, random_cases, simulate
from .study import STEPS, held_to_simulation, study

CLAIMS = {"saddle-attraction": "stays", "saddle-escaping": "leaves", "saddle-slowdown": "leaves"}


def check(count: int, seed: int, undecided: float) -> None:
    """No verdict contradicted, no `undecided` outside its margins, and not too many of them."""
    rows = study(count, seed)
    print(page(rows, seed, QUICK))
    failed = [f"{row.verdict} ({row.agreement}): {example(row)}" for row in rows if row.failed]
    assert not failed, "\n".join(failed)
    for variant in ("sam", "usam"):
        own = [row for row in rows if row.case.variant == variant]
        assert len(own) == count // 2
        for outcome in ("stays", "leaves"):
            assert sum(row.outcome == outcome for row in own) > count / 20
    plain = [row for row in rows if row.case.variant == "sam"]
    assert sum(row.verdict == "undecided" for row in plain) <= undecided * len(plain)
    kinds = {row.case.momentum_kind for row in rows}
    assert kinds == {"none", "heavy ball", "Nesterov", "EMA"}
    assert any(0.0 in row.case.lam for row in rows)


def test_verdicts_hold_on_random_quadratics() -> None:
    check(QUICK, seed=0, undecided=0.08)


@pytest.mark.slow
def test_verdicts_hold_on_many_random_quadratics() -> None:
    check(2400, seed=1, undecided=0.05)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(10_000, 10_000_000), linear=st.booleans())
def test_any_quadratic(seed: int, linear: bool) -> None:
    """One case from anywhere in the family."""
    [row] = held_to_simulation([random_cases(2, seed)[int(linear)]])
    assert not row.failed, (row.verdict, row.agreement, example(row))


def case(lam: tuple[float, ...], x: tuple[float, ...], **changes: float | str) -> Case:
    values = {"variant": "sam", "rho": 0.1, "lr": 0.05, "momentum": 0.0, "weight_decay": 0.0} | changes
    return Case(lam=lam, x=x, **values)  # type: ignore[arg-type]


def both(one: Case) -> tuple[str, str]:
    """Verdict and outcome."""
    return examine(one).verdict, simulate([one], steps=STEPS).outcome[0]


def test_momentum_frees_a_saddle_with_a_positive_direction() -> None:
    verdict, outcome = both(case((0.3, -1.0), (0.02, 0.03), lr=0.3, momentum=0.9))
    assert outcome == "leaves"
    assert verdict != "saddle-attraction"


def test_below_the_momentum_threshold_the_same_saddle_holds() -> None:
    assert both(case((0.3, -1.0), (0.02, 0.03), lr=0.3, momentum=0.6)) == ("saddle-attraction", "stays")


@pytest.mark.parametrize("share", [0.56, 0.2])
def test_a_gradient_along_a_positive_direction_does_not_free_for_good(share: float) -> None:
    """½(2x² − 2y²) from (x, 0.001): |g| comes from x, which decays to 0, and then y is captured."""
    verdict, outcome = both(case((2.0, -2.0), (0.1 / share, 0.001), rho=0.1, lr=0.01))
    assert outcome == "stays"
    assert verdict not in ("saddle-escaping", "saddle-slowdown")


def test_a_gradient_along_the_negative_direction_itself_does_free() -> None:
    for share in (0.56, 0.2):
        verdict, outcome = both(case((2.0, -2.0), (0.001, 0.1 / share), rho=0.1, lr=0.01))
        assert outcome == "leaves"
        assert verdict in ("saddle-escaping", "saddle-slowdown")


def test_a_maximum_with_distinct_curvatures_is_not_freed_at_the_threshold() -> None:
    verdict, outcome = both(case((-1.0, -0.7, -0.4), (0.03, 0.02, -0.03), lr=0.2, momentum=0.82))
    assert outcome == "stays"
    assert verdict not in ("saddle-escaping", "saddle-slowdown")


def test_a_weak_direction_is_freed_by_the_swing_along_a_strong_one() -> None:
    verdict, outcome = both(case((-4.0, -0.2), (0.001, 0.001), lr=0.2))
    assert outcome == "leaves"
    assert verdict != "saddle-attraction"


def test_a_bounce_that_leaves_a_saddle_is_not_told_to_lower_lr() -> None:
    """lam (4.2, −0.37) at eta 0.1 leaves by itself; at eta 0.02 the same point is captured."""
    here = case((4.2, -0.37), (0.1 * 0.1 / (2 - 0.42), 0.001), lr=0.1)
    assert simulate([here], steps=STEPS).outcome == ["leaves"]
    slower = case(here.lam, here.x, lr=0.02)
    assert simulate([slower], steps=STEPS).outcome == ["stays"]
    diagnosis = examine(here)
    assert "saddle-escaping" in {f.verdict for f in diagnosis.findings}
    assert diagnosis.verdict != "bounce" or "lr" not in diagnosis.prescription.rho.reason  # type: ignore[union-attr]


def growth(one: Case, *, plain: bool) -> float:
    """Escape rate per step along the fastest direction of linear USAM, from the optimiser's own recurrence."""
    radius = 0.0 if plain else one.rho
    best = 0.0
    for lam in one.lam:
        a = 1 + one.momentum - one.lr * (lam * (1 + radius * lam) + one.weight_decay)
        best = max(best, math.log(abs(np.roots([1, -a, one.momentum])).max()))
    return best


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_slowdown_is_the_ratio_of_escape_rates(momentum: float) -> None:
    lr = 0.1 if momentum else 1e-3
    one = case((1.0, -1.0, -0.1), (0.0, 0.0, 0.0), variant="usam", rho=0.8, lr=lr, momentum=momentum)
    slowdown = examine(one).findings[0].evidence["slowdown"]
    assert slowdown == pytest.approx(growth(one, plain=True) / growth(one, plain=False), rel=0.01)


def test_a_sustained_bounce_decides_whether_a_direction_stays_free() -> None:
    """|g| of the cycle against rho|lam|: the two sides of theory A6, diagnosed on the cycle."""
    for negative, expected in ((-1.5, "stays"), (-0.7, "leaves")):
        lr, rho = 0.1, 0.1
        lam = 4.0
        amplitude = bounce_gradient(lam, rho, lr, 0.0) / lam
        verdict, outcome = both(case((lam, negative), (amplitude, 1e-4), lr=lr, rho=rho))
        assert outcome == expected
        assert CLAIMS.get(verdict, outcome) == outcome or verdict == "bounce"
