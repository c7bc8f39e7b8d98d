"""*No recommendation* names what is missing, and how to supply it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from samdiag.advice import prescribe
from samdiag.types import UNKNOWN, Measurements

from ..verdicts.samples import FAILED, est, hallucinated, measurements, saddle
from .situations import said


def still(**changes: Any) -> Measurements:
    """A saddle without gradient along its negative direction."""
    m = saddle(est(-0.5), **changes)
    return dataclasses.replace(m, bottom_directions=(dataclasses.replace(m.bottom_directions[0], offset=0.0),))


@pytest.mark.parametrize(
    ("verdict", "m", "words"),
    [
        ("undecided", measurements(lr=None, lookahead_loss=None), "--lr"),
        ("undecided", saddle(est(-0.01, 0.1)), "--tol"),
        ("undecided", saddle(est(-0.01, 0.001, 0.1)), "--samples"),
        ("undecided", measurements(self_check=FAILED), "--dtype float64"),
        ("undecided", measurements(update_ratio=est(0.09, 0.0, 0.05)), "more --samples"),
        ("undecided", measurements(batch_size=32), "single batch"),
        ("undecided", measurements(), "train on and inspect again"),
        ("saddle-attraction", saddle(est(-0.2, 0.5)), "the sign of lambda_min = -0.2 ± 0.5"),
        ("saddle-attraction", still(), "single batch was analysed"),
        ("saddle-attraction", still(noise_trace=est(0.0)), "perturb the weights"),
        ("saddle-attraction", still(lr=None, lookahead_loss=None), "--lr"),
        ("hallucinated-minimizer", hallucinated(ridge_distance=UNKNOWN, lr=None, radius=math.inf), "--lr"),
    ],
)
def test_what_is_missing_is_named(verdict: str, m: Measurements, words: str) -> None:
    p = prescribe(m, said(verdict))
    assert p.schedule is None
    assert any(words in what for what in p.missing), p.missing


def test_nothing_is_missing_where_there_is_a_recommendation() -> None:
    p = prescribe(saddle(est(-0.5)), said("saddle-attraction"))
    assert p.schedule is not None
    assert p.missing == ()
