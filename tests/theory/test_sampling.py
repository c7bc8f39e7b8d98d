"""Bias and interval of a sample's eigenvalue against simulation, Student's t against its table, samples needed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.theory.sampling import (
    FURTHEST,
    STANDARD_ERRORS,
    eigenvalue_bias,
    error_at,
    interval_error,
    samples_needed,
    student_quantile,
    unseen,
)

# Abramowitz & Stegun, table 26.10, two-sided 5 %
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 30: 2.042, 60: 2.000, 120: 1.980, 100_000: 1.960}


@pytest.mark.parametrize("degrees", TABLE)
def test_students_quantile_is_that_of_the_table(degrees: int) -> None:
    assert student_quantile(degrees) == pytest.approx(TABLE[degrees], abs=5e-4)


def test_the_two_ways_to_the_quantile_meet() -> None:
    steps = [student_quantile(degrees - 1) - student_quantile(degrees) for degrees in (99, 100, 101)]
    assert steps == pytest.approx([steps[0]] * 3, rel=0.05)
    with pytest.raises(ValueError, match="at least 1"):
        student_quantile(0)


def population_of_matrices(count: int, noise: float) -> np.ndarray:
    """[count, 6, 6] symmetric matrices about diag(3, 1, 0.5, 0, −0.5, −2)."""
    generator = np.random.default_rng(0)
    raw = generator.normal(size=(count, 6, 6)) * noise
    return np.diag([3.0, 1.0, 0.5, 0.0, -0.5, -2.0]) + (raw + raw.transpose(0, 2, 1)) / 2


def half_and_half(matrices: np.ndarray, end: int) -> tuple[float, float, float]:
    """Eigenvalue of the mean matrix at one end (0 or −1); mean inside and outside values of its two halves."""
    halves = [matrices[0::2].mean(axis=0), matrices[1::2].mean(axis=0)]
    inside, outside = [], []
    for own, other in (halves, halves[::-1]):
        values, vectors = np.linalg.eigh(own)
        inside.append(values[end])
        outside.append(vectors[:, end] @ other @ vectors[:, end])
    return float(np.linalg.eigvalsh(matrices.mean(axis=0))[end]), float(np.mean(inside)), float(np.mean(outside))


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("samples", [40, 200])
def test_the_bias_is_what_subsets_exaggerate_on_average(end: int, samples: int) -> None:
    """N = 400, so that half of it being seen must halve the bias: 2000 subsets without replacement."""
    everything = population_of_matrices(400, noise=2.5)
    truth = np.linalg.eigvalsh(everything.mean(axis=0))[end]
    generator = np.random.default_rng(1)
    raw, corrected = [], []
    for _ in range(2000):
        value, inside, outside = half_and_half(everything[generator.permutation(400)[:samples]], end)
        raw.append(value - truth)
        corrected.append(raw[-1] - eigenvalue_bias(inside, outside, samples, 400))
    assert abs(np.mean(raw)) > 4 * np.std(raw) / math.sqrt(2000)  # there is a bias to be seen
    assert abs(np.mean(corrected)) < 0.15 * abs(np.mean(raw)) + 3 * np.std(corrected) / math.sqrt(2000)


def test_nothing_is_left_when_everything_was_seen() -> None:
    assert unseen(50, 50) == 0.0
    assert unseen(60, 50) == 0.0
    assert unseen(50, None) == 1.0
    assert eigenvalue_bias(3.0, 1.0, 50, 50) == 0.0
    assert error_at(0.3, 0.1, 25, 50, more=50) == 0.0


def test_the_error_is_half_of_a_students_interval() -> None:
    assert STANDARD_ERRORS * interval_error(0.1, 3, 0.0) == pytest.approx(0.1 * 3.182, rel=1e-3)
    assert interval_error(0.1, 3, -0.2) > interval_error(0.1, 3, 0.1) > interval_error(0.1, 3, 0.0)


@given(error=st.floats(1e-3, 1e3), share=st.floats(0.0, 1.0), factor=st.integers(2, 50))
def test_errors_shrink_like_the_root_and_doubts_like_the_count(error: float, share: float, factor: int) -> None:
    bias = share * error * math.sqrt(2.0)  # √2 bias/2 is the part of the error that is doubt in it
    then = error_at(error, bias, 100, None, more=100 * factor)
    noise = error * math.sqrt(max(1.0 - share**2, 0.0)) / math.sqrt(factor)
    assert then == pytest.approx(math.hypot(noise, share * error / factor), rel=1e-6)
    assert error_at(error, bias, 100, None, more=100) == pytest.approx(error)
    assert error_at(error, bias, 100, 10_000, more=100 * factor) < then or factor * 100 > 10_000


@given(
    needed=st.integers(2, 10**7), samples=st.integers(1, 10_000), population=st.one_of(st.none(), st.integers(1, 10**6))
)
def test_the_number_of_samples_is_the_smallest_that_decides(needed: int, samples: int, population: int | None) -> None:
    found = samples_needed(lambda more: more >= needed, samples, population)
    last = population or FURTHEST * samples
    if last <= samples or needed > last:
        assert found is None
    else:
        assert found is not None
        assert max(needed, samples) <= found <= max(1.15 * max(needed, samples), samples + 2)
        assert found <= last
