"""Verdicts on the update that is really run: mini-batches and micro-batches, Nesterov, dampening, variants."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from samdiag.theory.edge import stability_edge
from samdiag.types import BatchUpdate, Confidence, Finding, Measurements
from samdiag.verdicts import judge_all

from .samples import bouncing, est, hallucinated, measurements, minimum, saddle


def update(ratio: float, change: float, error: float = 0.0) -> BatchUpdate:
    """The mean over batches of 16, with this update ratio and loss change."""
    return BatchUpdate(
        size=16,
        num_batches=8,
        grad_scale=est(1.0),
        effective_radius=est(0.5),
        loss_change=est(change),
        update_norm=est(0.375 * ratio),
        gradient_ratio=est(ratio, 0.0, error),
        gradient_cosine=est(0.5),
        update_ratio=est(ratio, 0.0, error),
    )


def found(m: Measurements) -> dict[str, Finding]:
    return {f.verdict: f for f in judge_all(m)}


def test_a_hallucination_of_the_full_gradient_alone_is_none() -> None:
    """g+ of the whole sample vanishes, the mean over batches does not: the run moves on."""
    assert "hallucinated-minimizer" in found(hallucinated())
    assert "hallucinated-minimizer" not in found(hallucinated(batch_update=update(0.8, -0.1), batch_size=16))


def test_a_hallucination_of_the_batches_alone_is_one() -> None:
    full = {"update_ratio": est(0.6), "gradient_ratio": est(0.6), "loss_change": est(0.1)}
    assert "hallucinated-minimizer" not in found(hallucinated(**full))
    finding = found(hallucinated(**full, batch_update=update(0.01, -0.1), batch_size=16))["hallucinated-minimizer"]
    assert "in the mean over batches of 16" in finding.message
    assert (finding.evidence["update_ratio"], finding.evidence["full_update_ratio"]) == (0.01, 0.6)
    assert (finding.evidence["loss_change"], finding.evidence["full_loss_change"]) == (-0.1, 0.1)
    assert finding.evidence["batch_samples"] == 16


@pytest.mark.parametrize(
    ("ratio", "error", "expected"), [(0.05, 0.01, "hallucinated-minimizer"), (0.05, 0.03, "undecided"), (0.2, 0.03, "")]
)
def test_the_batches_ratio_is_compared_with_its_own_error(ratio: float, error: float, expected: str) -> None:
    names = found(hallucinated(batch_update=update(ratio, -0.1, error), batch_size=16))
    assert (expected in names) if expected else "hallucinated-minimizer" not in names


def test_a_bounce_is_judged_on_the_batches_as_well() -> None:
    assert "bounce" in found(bouncing())
    assert "bounce" not in found(bouncing(batch_update=update(0.9, 0.1), batch_size=16))
    finding = found(bouncing(batch_update=update(3.0, 0.1), batch_size=16))["bounce"]
    assert (finding.evidence["gradient_ratio"], finding.evidence["full_gradient_ratio"]) == (3.0, 4.0)
    assert finding.evidence["bounced_curvature"] == pytest.approx(2 / (0.05 * 3))


def test_a_hallucinated_minimizer_shows_the_iterations_largest_multiplier() -> None:
    finding = found(hallucinated(largest_multiplier=est(0.98)))["hallucinated-minimizer"]
    assert finding.evidence["largest_multiplier"] == 0.98
    assert "largest_multiplier" not in found(hallucinated())["hallucinated-minimizer"].evidence


def test_the_batch_that_frees_is_the_one_behind_the_ascent() -> None:
    noisy: dict[str, Any] = {"noise_trace": est(4.0), "batch_size": 256, "ascent_noise": 1e-5}
    plain = found(measurements(**noisy, ascent_batch=256))["saddle-attraction"]
    micro = found(measurements(**noisy, ascent_batch=128, micro_batch=128))["saddle-attraction"]
    assert "below batch size" in plain.message
    assert "(batch size 256 now)" in plain.message
    assert "below micro-batch" in micro.message
    assert "(micro-batch 128 now)" in micro.message
    assert micro.evidence["ascent_batch"] == 128


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dampening", [0.0, 0.9])
def test_the_edge_is_that_of_the_iteration_that_is_run(nesterov: bool, dampening: float) -> None:
    momentum = 0.9
    edge = stability_edge(momentum, nesterov=nesterov) / (1 - dampening)
    for share, expected in ((0.99, "minimum"), (1.01, "unstable")):
        m = minimum(top=est(share * edge), lr=1.0, momentum=momentum, nesterov=nesterov, dampening=dampening, rho=1e-9)
        assert judge_all(m)[0].verdict == expected


def test_dampening_is_a_smaller_step_everywhere() -> None:
    """v ← gamma·v + (1 − d)·g with lr is the heavy ball with lr(1 − d): the same findings."""
    for build in (measurements, bouncing, hallucinated):
        m = build()
        heavy = dataclasses.replace(m, momentum=0.5, lr=m.lr)
        damped = dataclasses.replace(m, momentum=0.5, lr=2 * (m.lr or 0.0), dampening=0.5)
        assert damped.step_size == heavy.step_size
        for one, other in zip(judge_all(heavy), judge_all(damped), strict=True):
            assert one.verdict == other.verdict
            assert one.evidence.get("slowdown") == other.evidence.get("slowdown")
            assert one.evidence.get("bounced_curvature") == other.evidence.get("bounced_curvature")


@pytest.mark.parametrize("variant", ["gsam", "asam", "asam-samsung"])
def test_cross_terms_that_are_left_out_cost_confidence(variant: str) -> None:
    assert found(measurements())["saddle-attraction"].confidence is Confidence.HIGH
    assert found(measurements(variant=variant))["saddle-attraction"].confidence is Confidence.MEDIUM


def test_gsam_is_held_where_sam_is_and_may_be_held_elsewhere() -> None:
    """Its ascent is SAM's; what it makes of g and g+ held no fewer of the simulated saddles, and some more."""
    held = measurements()
    assert "saddle-attraction" in found(dataclasses.replace(held, variant="gsam"))
    free = saddle(est(-0.5), radius=3.0, top=est(40.0), lr=0.045, momentum=0.0, lookahead_loss=2.3)
    assert judge_all(free)[0].verdict == "saddle-escaping"
    [finding] = judge_all(dataclasses.replace(free, variant="gsam"))
    assert finding.verdict == "undecided"
    assert "GSAM" in finding.message
