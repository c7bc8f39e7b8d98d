"""Random captured saddles: held before the prescription, left after it, in about the predicted number of steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.advice import prescribe
from samdiag.verdicts import judge_all

from .situations import captured_world, said, slowed_world


def outcomes(count: int, seed: int) -> list[tuple[float, float, float]]:
    """(median exit over predicted steps, share that escaped after, share before) for each saddle."""
    rng = np.random.default_rng(seed)
    found = []
    for case in range(count):
        world = captured_world(rng)
        measured = world.measured()
        findings = judge_all(measured)
        if findings[0].verdict != "saddle-attraction":
            continue
        advice = prescribe(measured, findings)
        assert advice.escape_steps is not None
        assert advice.rho.recommended is not None
        batch = advice.batch_size.recommended or float(world.batch)
        gamma = advice.momentum.recommended
        steps, lam = int(6 * advice.escape_steps), abs(float(world.lam.min()))
        after = world.exits(
            rho=advice.rho.recommended,
            momentum=world.momentum if gamma is None else gamma,
            batch=batch,
            distance=math.sqrt(world.noise.sum() / batch) / lam,
            steps=steps,
            seed=case,
        )
        before = world.exits(
            rho=world.rho,
            momentum=world.momentum,
            batch=world.batch,
            distance=world.scale / lam,
            steps=steps,
            seed=case,
        )
        found.append(
            (
                float(np.median(after)) / advice.escape_steps,
                float(np.isfinite(after).mean()),
                float(np.isfinite(before).mean()),
            )
        )
    return found


def check(count: int, seed: int) -> None:
    found = outcomes(count, seed)
    assert len(found) > 0.8 * count
    ratios, after, before = (np.array(column) for column in zip(*found, strict=True))
    assert (after > 0.9).all()
    assert before.mean() < 0.05
    assert ((ratios > 0.5) & (ratios < 2)).all(), ratios
    assert 0.85 < np.median(ratios) < 1.2


def test_the_prescription_frees_random_captured_saddles_in_the_predicted_time() -> None:
    check(25, seed=0)


@pytest.mark.slow
def test_the_prescription_frees_many_random_captured_saddles() -> None:
    check(200, seed=1)


def test_a_smaller_batch_at_the_same_rho_restores_half_the_pace() -> None:
    """Slowed saddles whose prescription is the batch size alone: simulated exits against the prediction."""
    rng = np.random.default_rng(2)
    checked = 0
    for case in range(60):
        world = slowed_world(rng)
        measured = world.measured()
        advice = prescribe(measured, said("saddle-slowdown"))
        batch = advice.batch_size.recommended
        if batch is None or batch >= world.batch:
            assert advice.rho.binding == "saddle trap" or advice.rho.recommended == world.rho
            continue
        assert advice.rho.recommended == world.rho
        assert advice.momentum.recommended is None or advice.momentum.recommended >= world.momentum
        assert advice.escape_steps is not None
        checked += 1
        if checked <= 8:
            gamma = advice.momentum.recommended
            exits = world.exits(
                rho=world.rho,
                momentum=world.momentum if gamma is None else gamma,
                batch=batch,
                distance=math.sqrt(world.noise.sum() / batch) / abs(float(world.lam.min())),
                steps=int(6 * advice.escape_steps),
                seed=case,
            )
            assert 0.5 < float(np.median(exits)) / advice.escape_steps < 2
    assert checked >= 5


def test_the_noise_temperature_grows_by_at_most_four() -> None:
    """Theory D3: eta/(B(1−gamma)) ≤ 4× current, for the recommended pair."""
    rng = np.random.default_rng(3)
    for case in range(60):
        world = captured_world(rng) if case % 2 else slowed_world(rng)
        advice = prescribe(world.measured(), said("saddle-attraction" if case % 2 else "saddle-slowdown"))
        batch, gamma = advice.batch_size.recommended, advice.momentum.recommended
        after = 1 / ((batch or world.batch) * (1 - (world.momentum if gamma is None else gamma)))
        assert after <= 4.2 / (world.batch * (1 - world.momentum))  # B is rounded down to a whole number


def test_the_batch_size_in_the_reason_is_the_recommended_one() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        advice = prescribe(slowed_world(rng).measured(), said("saddle-slowdown")).batch_size
        if advice.binding == "saddle trap":
            assert f"at most {advice.recommended:.0f} samples" in advice.reason
