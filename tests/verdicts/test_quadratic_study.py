"""Verdicts on random quadratics against what the simulated optimiser then does."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest

from samdiag.theory.edge import bounce_gradient
from samdiag.types import Diagnosis

from .quadratics import CLAIMS, Case, examine, random_cases, simulate

STEPS = 20_000
TELLABLE = 30.0  # e-foldings that a claimed escape must have had time for


def known_class(case: Case, diagnosis: Diagnosis) -> str:
    """Which of the known weaknesses of the linear tests a disagreement belongs to; empty: none, it is new."""
    lam = np.array(case.lam)
    gradient = np.abs(lam * np.array(case.x))
    negative = lam < 0
    if case.variant == "usam" or not negative.any():
        return ""
    strongest = float(np.abs(lam[negative]).max())
    by_momentum = case.momentum > 0 and case.momentum > 1 - case.lr * strongest
    verdict = diagnosis.verdict
    if verdict == "saddle-attraction":
        if by_momentum:
            return "momentum frees a saddle"
        if int(negative.sum()) > 1 and case.lr * strongest > 0.3:
            return "large steps along a strong negative direction free a weak one"
        return "a longer cycle than the bounce" if case.momentum > 0 and lam.max() > 0 else ""
    if verdict in ("saddle-escaping", "saddle-slowdown"):
        if by_momentum and lam.max() < 0:
            return "momentum does not free a maximum"
        free = np.maximum(np.abs(lam) - case.weight_decay, 1e-12)
        own = (gradient > case.rho * lam**2 / free * 1.02) & negative
        return "" if own.any() else "free only at today's gradient"
    return "bounces and leaves" if verdict == "bounce" else ""


def escape_claimed_in_time(case: Case) -> bool:
    """Whether the retained rate is enough for the run to have left within the simulation."""
    if case.variant == "sam":
        return True  # its rate grows on the way out
    lam, radius = np.array(case.lam), case.rho
    rate = -(lam * (1 + radius * lam) + case.weight_decay)
    return bool(case.lr * rate.max() / (1 - case.momentum) * STEPS > TELLABLE)


def study(count: int, seed: int) -> tuple[dict[tuple[str, str, str], int], list[tuple[str, Case, str, str]]]:
    """The confusion table {(variant, verdict, outcome): cases}, and every disagreement with its class."""
    cases = random_cases(count, seed)
    outcomes = simulate(cases, steps=STEPS).outcome
    table: collections.Counter[tuple[str, str, str]] = collections.Counter()
    wrong = []
    for case, outcome in zip(cases, outcomes, strict=True):
        diagnosis = examine(case)
        table[case.variant, diagnosis.verdict, outcome] += 1
        claim = CLAIMS.get(diagnosis.verdict, outcome)
        if claim != outcome and (claim != "leaves" or escape_claimed_in_time(case)):
            wrong.append((known_class(case, diagnosis), case, diagnosis.verdict, outcome))
    return dict(table), wrong


def report(table: dict[tuple[str, str, str], int], wrong: list[tuple[str, Case, str, str]]) -> str:
    lines = [f"{variant:5} {verdict:22} {outcome:9} {n}" for (variant, verdict, outcome), n in sorted(table.items())]
    lines += [f"{n:4} × {name or 'UNKNOWN'}" for name, n in collections.Counter(w[0] for w in wrong).items()]
    return "\n".join([*lines, *(str(w) for w in wrong if not w[0])])


def check(count: int, seed: int) -> None:
    table, wrong = study(count, seed)
    print(report(table, wrong))
    assert not [w for w in wrong if not w[0]], report(table, wrong)
    usam = sum(n for (variant, *_), n in table.items() if variant == "usam")
    assert not [w for w in wrong if w[1].variant == "usam"]
    assert usam == count // 2
    for outcome in ("stays", "leaves"):
        assert sum(n for (_, _, found), n in table.items() if found == outcome) > count / 10
    plain = [w for w in wrong if w[1].momentum == 0 and w[2] == "saddle-attraction"]
    assert len(plain) <= count / 100  # without momentum an attraction is one


def test_verdicts_hold_on_random_quadratics() -> None:
    check(300, seed=0)


@pytest.mark.slow
def test_verdicts_hold_on_many_random_quadratics() -> None:
    check(2400, seed=1)


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
