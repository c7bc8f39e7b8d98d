"""When both ends are known well enough: every rule on ends made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from samdiag.curvature.ritz import RitzEnds
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.stopping import IRRELEVANT, decided, ends_known, proof_target, stopping_rule

RADIUS = 2.0  # SAM reverses below −0.5


def ends(low: float, low_error: float, high: float = 4.0, high_error: float = 1e-3, **bounds: float) -> RitzEnds:
    below, above = bounds.get("below", low - low_error), bounds.get("above", high + high_error)
    return RitzEnds(
        bottom=[low],
        bottom_residuals=[low_error],
        top=[high],
        top_residuals=[high_error],
        bounds=lambda _: (below, above),
    )


@pytest.mark.parametrize(
    ("found", "certain"),
    [
        (ends(-1.0, 0.005), True),
        (ends(-1.0, 0.02), False),  # not to the tolerance
        (ends(-0.503, 0.004), False),  # −1/rho_eff inside the bar
        (ends(-0.03, 0.002), True),  # 7 %: no saddle verdict hangs on it
        (ends(-0.03, 0.004), False),  # 13 %
        (ends(-1.0, 0.005, 10.05, 0.1), False),  # the edge inside the bar
        (ends(-1.0, 0.005, 4.0, 0.1), False),
    ],
)
def test_ends_are_known_to_the_tolerance_and_clear_of_thresholds(found: RitzEnds, certain: bool) -> None:
    assert ends_known(RADIUS, 10.0, 0.01)(found) is certain


@pytest.mark.parametrize(
    ("found", "certain"),
    [
        (ends(-0.01, 0.01, below=-0.04), True),  # rough, but nothing reaches a tenth of the threshold
        (ends(-0.01, 0.01, below=-0.06), False),
        (ends(-0.01, 0.01, below=-0.04, high_error=1.0), False),  # lambda_max too rough to be printed
        (ends(-1.0, 0.3, below=-2.0), True),  # reversed for sure, and negative for sure
        (ends(-1.0, 0.7, below=-2.0), False),  # the residual reaches the threshold
        (ends(-0.2, 0.05, below=-0.3), True),  # between the two thresholds
        (ends(-0.2, 0.05, below=-0.45), False),  # within the margin of −1/rho_eff
        (ends(-0.2, 0.25, below=-0.3), False),  # may be positive
        (ends(-0.01, 0.01, 9.0, 0.1, below=-0.04), False),  # within the margin of the edge
        (ends(-0.01, 0.01, 7.0, 0.1, below=-0.04, above=9.0), False),  # the bound reaches it
        (ends(-0.01, 0.01, 7.0, 0.1, below=-0.04, above=7.5), True),
    ],
)
def test_decided_looks_at_the_certified_intervals_only(found: RitzEnds, certain: bool) -> None:
    assert decided(RADIUS, 10.0)(found) is certain


def test_the_rule_follows_the_settings() -> None:
    settings = MeasureSettings(rho=0.1, lr=0.2)
    rough = ends(-0.01, 0.01, 4.0, 0.1, below=-0.04)
    until_ends, until_decided = (
        stopping_rule(settings, RADIUS),
        stopping_rule(replace(settings, until="decided"), RADIUS),
    )
    assert until_ends is not None
    assert until_decided is not None
    assert not until_ends(rough)
    assert until_decided(rough)
    assert stopping_rule(replace(settings, until="converged"), RADIUS) is None
    assert stopping_rule(replace(settings, variant="asam"), RADIUS) is None
    assert stopping_rule(settings, None) is None


def test_the_proof_reaches_as_far_as_the_verdicts_need() -> None:
    target = proof_target(RADIUS)
    assert target(-0.001) == -IRRELEVANT / RADIUS
    assert -0.5 < target(-0.2) < -0.2  # SAM does not reverse it: nor anything below
    assert target(-1.0) < -1.0
    for radius in (None, 0.0, math.inf):
        assert proof_target(radius)(-1.0) == -2.0
