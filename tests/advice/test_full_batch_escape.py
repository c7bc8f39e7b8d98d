"""Full-batch SAM held near a saddle of a random quadratic: the prescribed settings, simulated from the same point."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from samdiag.types import Diagnosis

from ..verdicts.quadratics import Case, examine, random_cases, simulate

STEPS = 20_000


def prescribed(case: Case, diagnosis: Diagnosis) -> Case:
    """The same point under the recommended rho and momentum."""
    advice = diagnosis.prescription
    assert advice is not None
    assert advice.rho.recommended is not None
    gamma = advice.momentum.recommended
    return dataclasses.replace(case, rho=advice.rho.recommended, momentum=case.momentum if gamma is None else gamma)


def pushed_by_its_own_gradient(case: Case) -> bool:
    """Whether the gradient along some negative direction alone exceeds what holds it: |q·g| > rho·lam²/(|lam| − wd)."""
    lam = np.array(case.lam)
    free = np.maximum(np.abs(lam) - case.weight_decay, 1e-12)
    return bool(((np.abs(lam * np.array(case.x)) > 1.02 * case.rho * lam**2 / free) & (lam < 0)).any())


def treated(count: int, seed: int) -> list[tuple[bool, str]]:
    """(pushed by its own gradient, what becomes of it) for every case that SAM is held at, and SGD would leave in time,
    after its prescription.
    """
    cases = [c for c in random_cases(count, seed) if c.variant == "sam"]
    plain = simulate(cases, steps=STEPS, plain=True).outcome
    held = []
    for case, outcome, without in zip(cases, simulate(cases, steps=STEPS).outcome, plain, strict=True):
        if (outcome, without) != ("stays", "leaves"):
            continue
        diagnosis = examine(case)
        if diagnosis.verdict in ("saddle-attraction", "saddle-slowdown"):
            assert diagnosis.prescription is not None
            if diagnosis.prescription.rho.recommended is not None:
                held.append(prescribed(case, diagnosis))
    outcomes = simulate(held, steps=STEPS).outcome
    return [(pushed_by_its_own_gradient(c), o) for c, o in zip(held, outcomes, strict=True)]


def test_the_prescription_frees_where_the_gradient_lies_along_the_escape() -> None:
    outcomes = [outcome for own, outcome in treated(200, seed=7) if own]
    assert len(outcomes) > 20
    assert set(outcomes) == {"leaves"}


@pytest.mark.parametrize("x", [(0.03, 1e-6), (0.02, 0.001)])
def test_the_prescription_frees_where_the_gradient_lies_across_it(x: tuple[float, float]) -> None:
    """½(2x² − 2y²): |g| belongs to x, which decays to 0; the escape promised in N steps never comes."""
    case = Case(lam=(2.0, -2.0), x=x, variant="sam", rho=0.1, lr=0.01, momentum=0.0, weight_decay=0.0)
    diagnosis = examine(case)
    assert diagnosis.prescription is not None
    assert diagnosis.prescription.escape_steps is not None
    assert simulate([prescribed(case, diagnosis)], steps=STEPS).outcome == ["leaves"]
