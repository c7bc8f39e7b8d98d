"""When both ends are known well enough: every rule on ends made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from samdiag.curvature.ritz import RitzEnds
from samdiag.measure import stopping
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.stopping import IRRELEVANT, MARGIN, Stakes, decided, ends_known, proof_target, stopping_rule
from samdiag.theory.edge import stability_edge
from samdiag.theory.saddle import shifted_eigenvalue
from samdiag.verdicts import thresholds

RADIUS = 2.0  # SAM reverses below −0.5
PLAIN = Stakes(radius=RADIUS, edge=10.0)
DECAYED = Stakes(radius=RADIUS, edge=10.0, decay=0.08)  # mu = 0 at −0.4 and −0.1: free in between


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
        (ends(-0.03, 0.002), True),  # 7 %, and far above −1/rho_eff
        (ends(-0.03, 0.004), False),  # 13 %
        (ends(-1.0, 0.005, 10.05, 0.1), False),  # the edge inside the bar
        (ends(-1.0, 0.005, 4.0, 0.1), False),
        (ends(-1.0, 0.005, below=-5.0), True),  # reversed itself: what lies below is as well
        (ends(-0.2, 0.001, below=-0.6), False),  # what lies below may be reversed
        (ends(-0.2, 0.001, below=-0.45), False),  # rho_eff has an error bar of its own
        (ends(-0.2, 0.001, below=-0.39), True),
        (ends(-0.45, 0.001, below=-0.49), True),  # inside that margin: the threshold itself
        (ends(-0.45, 0.001, below=-0.51), False),
        (ends(0.2, 0.001, below=-0.3), True),  # the sign of the rest is not asked for, but that nothing is reversed
        (ends(0.2, 0.001, below=-0.6), False),
        (ends(-0.03, 0.002, below=-0.04), True),
        (ends(-0.03, 0.002, below=-0.06), False),  # 7 % is too rough where something else may be near a saddle
        (ends(-0.03, 0.0002, below=-0.06), True),
        (ends(-1.0, 0.005, 9.0, 0.01, above=10.5), False),  # what lies above may be beyond the edge
        (ends(-1.0, 0.005, 9.0, 0.01, above=9.5), True),
        (ends(-1.0, 0.005, 11.0, 0.01, above=20.0), True),
    ],
)
def test_ends_are_known_to_the_tolerance_and_clear_of_thresholds(found: RitzEnds, certain: bool) -> None:
    assert ends_known(PLAIN, 0.01)(found) is certain


def test_bounds_are_computed_only_where_the_rest_is_known() -> None:
    asked = []

    def bounds(probability: float) -> tuple[float, float]:
        asked.append(probability)
        return -0.21, 4.1

    rule = ends_known(PLAIN, 0.01)
    assert not rule(replace(ends(-0.2, 0.1), bounds=bounds))
    assert not rule(replace(ends(-0.2, 0.001, 4.0, 1.0), bounds=bounds))
    assert not asked
    assert rule(replace(ends(-0.2, 0.001), bounds=bounds))
    assert asked == [0.99]


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
    assert decided(PLAIN)(found) is certain


@pytest.mark.parametrize(
    ("found", "certain"),
    [
        (ends(-0.05, 0.0005), True),  # less negative than the decay: a minimum of what is descended
        (ends(-0.0801, 0.0005), False),  # −wd inside the bar
        (ends(-0.0995, 0.0009), False),  # freed here
        (ends(-0.399, 0.002), False),  # captured here, not at −1/rho_eff
        (ends(-0.45, 0.002, below=-9.0), True),
        (ends(-0.2, 0.001, below=-0.42), False),
        (ends(-0.2, 0.001, below=-0.3), False),  # with a radius a quarter larger it is captured
        (ends(-0.2, 0.001, below=-0.28), True),
        (ends(-0.09, 0.0005, below=-0.15), False),  # held by the decay alone: what lies below is free
        (ends(-0.09, 0.0005, below=-0.095), True),
    ],
)
def test_weight_decay_moves_the_thresholds_of_ends(found: RitzEnds, certain: bool) -> None:
    assert ends_known(DECAYED, 0.01)(found) is certain


@pytest.mark.parametrize(
    ("found", "certain"),
    [
        (ends(-0.02, 0.04, below=-0.07), True),  # above −wd, whatever its sign
        (ends(-0.02, 0.04, below=-0.09), False),
        (ends(-0.2, 0.05, below=-0.25), True),  # free
        (ends(-0.13, 0.01, below=-0.25), True),
        (ends(-0.13, 0.03, below=-0.25), False),  # −0.1 is where the decay begins to hold it
        (ends(-0.3, 0.05, below=-0.4), False),
        (ends(-0.6, 0.05, below=-9.0), True),  # captured
    ],
)
def test_weight_decay_moves_the_thresholds_of_decisions(found: RitzEnds, certain: bool) -> None:
    assert decided(DECAYED)(found) is certain


@pytest.mark.parametrize("radius", [0.3, 2.0, 3.0, 50.0])
@pytest.mark.parametrize("decay", [0.0, 0.01, 0.08, 1.0])
def test_thresholds_are_where_the_verdicts_have_them(radius: float, decay: float) -> None:
    """The sign of lam + wd, and of mu for every radius within the margin, is the same between two bands."""
    bands = Stakes(radius=radius, decay=decay).bands()
    for i in range(-4000, 4000):
        lam = 1.5 * max(1.0 / radius, decay) * (i + 0.5) / 4000
        inside = [first <= lam <= last for first, last in bands]
        signs = {(shifted_eigenvalue(lam, radius * f, decay) > 0) for f in (1 / MARGIN, 1.0, MARGIN) if lam + decay < 0}
        assert len(signs) <= 1 or any(inside), lam
    for first, last in bands:  # and no band is wider than it has to be
        assert first == last == -decay or any(
            abs(shifted_eigenvalue(end, radius * f, decay)) < 1e-9
            for f in (1 / MARGIN, MARGIN)
            for end in (first, last)
        )


def test_usam_has_no_shortcut_and_its_own_edges() -> None:
    """Nearness to a saddle does not hang on its radius; rho·lam² throws it out at either end."""
    settings = MeasureSettings(rho=RADIUS, lr=0.1, variant="usam")
    usam = Stakes.of(settings, RADIUS)
    edge = stability_edge(0.0) / 0.1
    assert usam.edge is not None
    assert usam.low_edge is not None
    for lam in (usam.edge, usam.low_edge):
        assert shifted_eigenvalue(lam, RADIUS) == pytest.approx(edge)
    rough = ends(-0.01, 0.02, 1.0, 0.001, below=-0.04)
    assert not decided(usam)(rough)
    assert decided(replace(usam, usam=False, pace=None, edge=10.0))(rough)
    assert not ends_known(usam, 0.01)(ends(-0.03, 0.002, 1.0, 0.001))
    assert ends_known(usam, 0.01)(ends(-0.03, 0.0002, 1.0, 0.001))
    assert not ends_known(usam, 0.01)(ends(-1.0, 0.005, 1.0, 0.001, below=-5.0))  # thrown out below −2.9
    assert ends_known(usam, 0.01)(ends(-1.0, 0.005, 1.0, 0.001, below=-2.0))


def test_an_open_sign_counts_where_a_run_that_stands_still_could_leave() -> None:
    """|lambda_min| of 0.04 pays within 1000 steps of 0.2, and not of 0.1."""
    rough = ends(-0.01, 0.01, 4.0, 0.1, below=-0.04)
    slow, fast = (Stakes.of(MeasureSettings(rho=0.1, lr=lr), RADIUS) for lr in (0.1, 0.2))
    assert decided(slow)(rough)
    assert not decided(fast)(rough)
    assert decided(fast)(ends(-0.03, 0.01, 4.0, 0.1, below=-0.04))  # negative for certain, and free
    flat = ends(-0.01, 0.01, 0.5, 0.01, below=-0.04)  # a usable lr is taken where the schedule's is tiny
    assert not decided(Stakes.of(MeasureSettings(rho=0.1, lr=1e-6), RADIUS))(flat)
    assert decided(Stakes.of(MeasureSettings(rho=0.1), RADIUS))(flat)  # no lr, no next steps


def test_the_numbers_are_the_verdicts() -> None:
    assert stopping.IRRELEVANT == thresholds.NEAR_SADDLE
    assert (stopping.HORIZON, stopping.EXITS_NEEDED) == (thresholds.HORIZON, thresholds.EXITS_NEEDED)
    assert stopping.USABLE_EDGE == thresholds.USABLE_EDGE


def test_the_edge_is_moved_by_decay_and_momentum() -> None:
    settings = MeasureSettings(rho=0.1, lr=0.1, momentum=0.5, weight_decay=0.25)
    assert Stakes.of(settings, RADIUS).edge == pytest.approx(30.0 - 0.25)
    inside = replace(settings, weight_decay_in="objective")
    assert Stakes.of(inside, RADIUS) == replace(Stakes.of(settings, RADIUS), edge=30.0, decay=0.0)


def test_the_rule_follows_the_settings() -> None:
    settings = MeasureSettings(rho=0.1, lr=0.1)
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
