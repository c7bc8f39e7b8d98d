"""The two promises about error bars, for whatever can be measured: hypothesis draws the point and walks one number."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from samdiag.theory.edge import stability_edge
from samdiag.types import Estimate, Finding, Forecast, Measurements
from samdiag.verdicts import judge_all
from samdiag.verdicts.thresholds import HALLUCINATION_RATIO, MARGIN_NORMALISED, MARGIN_USAM

from . import samples
from .samples import est, hallucinated, minimum, saddle

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SADDLES = {"saddle-attraction", "saddle-slowdown", "saddle-escaping"}
FREE = {"saddle-slowdown", "saddle-escaping"}
POINTS = 41  # on a walk

forecasts = st.one_of(
    st.none(), st.builds(Forecast, outcome=st.sampled_from(["stays", "leaves", "open"]), steps=st.just(10_000))
)


def names(m: Measurements) -> set[str]:
    return {f.verdict for f in judge_all(m)}


def widened(estimate: Estimate, share: float, decay: float) -> Estimate:
    """The same value with standard errors that make its interval, moved by weight decay, contain 0."""
    assert estimate.value is not None
    need = abs(estimate.value + decay) * (1.0 + share)
    return dataclasses.replace(estimate, sampling_error=max(need / 2.0, estimate.sampling_error or 0.0))


@settings(QUICK, max_examples=100)
@given(samples.reachable(), st.floats(0.0, 10.0), forecasts)
def test_an_interval_that_contains_0_never_gives_a_saddle_verdict(
    m: Measurements, share: float, forecast: Forecast | None
) -> None:
    """Whatever else was measured, and whatever a forecast says: no saddle verdict of any confidence."""
    bottom = tuple(
        dataclasses.replace(d, eigenvalue=widened(d.eigenvalue, share, m.weight_decay)) for d in m.bottom_directions
    )
    wide = dataclasses.replace(
        m,
        forecast=forecast,
        bottom_directions=bottom,
        bottom_eigenvalues=tuple(d.eigenvalue for d in bottom),
        lambda_min=bottom[0].eigenvalue,
    )
    assert all(d.eigenvalue.high + m.weight_decay >= 0 for d in bottom)
    assert not names(wide) & SADDLES


@QUICK
@given(
    magnitude=st.floats(-4, 2),
    width=st.floats(0.0, 3.0),
    radius=st.floats(-3, 5),
    variant=st.sampled_from(["sam", "usam", "asam", "gsam"]),
    complete=st.booleans(),
    lr=st.one_of(st.none(), st.floats(1e-4, 0.1)),
)
def test_only_a_negative_interval_gives_a_saddle_verdict(
    magnitude: float, width: float, radius: float, variant: str, complete: bool, lr: float | None
) -> None:
    """A saddle, its bar half numerical and half sampling error: a saddle verdict says that the bar ends below 0."""
    lam = -(10.0**magnitude)
    bar = est(lam, -lam * width / 2, -lam * width / 4)
    m = saddle(bar, radius=10.0**radius / -lam, variant=variant, spectrum_complete=complete, lr=lr)
    if names(m) & SADDLES:
        assert bar.high < 0
    if bar.high >= 0:
        assert not names(m) & SADDLES


def verdicts_along(build: Any, values: np.ndarray) -> list[Finding]:
    return [judge_all(build(float(v)))[0] for v in values]


def assert_no_jump(sequence: list[Finding], one: set[str], other: set[str]) -> None:
    """Neighbours are never on the two sides of a threshold: between them lies something that decides neither."""
    for before, after in itertools.pairwise(sequence):
        pair = {before.verdict, after.verdict}
        assert not (pair & one and pair & other), (before.message, after.message)


@QUICK
@given(
    variant=st.sampled_from(["sam", "usam", "asam"]),
    error=st.floats(0.0, 0.2),
    decay=st.sampled_from([0.0, 0.05]),
    radius=st.floats(0.5, 20.0),
)
def test_capture_flips_only_while_its_threshold_lies_in_the_bar(
    variant: str, error: float, decay: float, radius: float
) -> None:
    """|lam| walks from free to captured at a fixed rho_eff; threshold rho_eff·|lam| = 1 − wd/|lam|."""
    margin = MARGIN_USAM if variant == "usam" else MARGIN_NORMALISED
    edge = (1 + math.sqrt(max(1 - 4 * radius * decay, 0.0))) / (2 * radius)  # mu = 0 on the captured side
    assume(4 * radius * decay < 0.5)
    values = edge * np.linspace(1 - 3 * margin, 1 + 3 * margin, POINTS)
    bar = error * edge

    def build(size: float) -> Measurements:
        return saddle(
            est(-size, bar),
            radius=radius,
            variant=variant,
            top=est(1e-3),
            rho=0.02,
            weight_decay=decay,
            loss_lower_bound=None,
            lr=1e-3,
        )

    sequence = verdicts_along(build, values)
    assert_no_jump(sequence, {"saddle-attraction"}, FREE)
    for size, finding in zip(values, sequence, strict=True):
        if size - bar <= edge <= size + bar:
            assert finding.verdict not in SADDLES
        if finding.verdict == "saddle-attraction":
            assert size - bar > edge
        if finding.verdict in FREE:
            assert size + bar < edge


@QUICK
@given(norm_error=st.floats(0.0, 0.3), size=st.floats(0.2, 5.0))
def test_capture_flips_only_while_the_gradients_error_allows_both(norm_error: float, size: float) -> None:
    """|g| walks across rho·|lam| with its standard error: what a smaller and a larger |g| say must agree."""
    rho = 0.1
    values = rho * size * np.linspace(0.4, 1.6, POINTS)

    def build(norm: float) -> Measurements:
        grad = est(norm, 0.0, norm_error * norm)
        return saddle(est(-size), radius=rho / norm, rho=rho, top=est(1e-3), grad_norm=grad, lr=1e-3)

    sequence = verdicts_along(build, values)
    assert_no_jump(sequence, {"saddle-attraction"}, FREE)
    for norm, finding in zip(values, sequence, strict=True):
        low, high = norm * (1 - 2 * norm_error), norm * (1 + 2 * norm_error)
        if low <= rho * size <= high:
            assert finding.verdict not in SADDLES


@QUICK
@given(
    error=st.floats(0.0, 0.5),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    dampening=st.sampled_from([0.0, 0.5]),
)
def test_instability_flips_only_while_the_edge_lies_in_the_bar(
    error: float, momentum: float, nesterov: bool, dampening: float
) -> None:
    edge = stability_edge(momentum, nesterov=nesterov) / (1 - dampening)
    values = edge * np.linspace(0.4, 1.6, POINTS)

    def build(top: float) -> Measurements:
        return minimum(top=est(top, error * edge), lr=1.0, momentum=momentum, nesterov=nesterov, dampening=dampening)

    sequence = verdicts_along(build, values)
    for top, finding in zip(values, sequence, strict=True):
        if finding.verdict == "unstable":
            assert top - error * edge > edge
        if finding.verdict == "minimum":
            assert top + error * edge < edge
    if error > 0.02:  # the bar is wider than a step of the walk
        assert_no_jump(sequence, {"unstable"}, {"minimum"})


@QUICK
@given(error=st.floats(0.0, 0.04))
def test_hallucination_flips_only_while_its_threshold_lies_in_the_bar(error: float) -> None:
    values = np.linspace(0.0, 0.3, POINTS)

    def build(ratio: float) -> Measurements:
        value = est(ratio, 0.0, error)
        return hallucinated(update_ratio=value, gradient_ratio=value)

    for ratio, finding in zip(values, verdicts_along(build, values), strict=True):
        if finding.verdict == "hallucinated-minimizer":
            assert ratio + 2 * error < HALLUCINATION_RATIO
        elif ratio < HALLUCINATION_RATIO:  # short of the threshold, but not beyond the bar
            assert finding.verdict == "undecided"
