"""The Beta distribution function against closed forms, and count intervals against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.curvature.counts import LARGE, count_interval, cumulative_beta, standard_error


@pytest.mark.parametrize("x", [0.0, 1e-6, 0.2, 0.5, 0.9, 1.0])
def test_closed_forms(x: float) -> None:
    a = np.array([1.0, 2.0, 0.5, 1.0])
    b = np.array([1.0, 1.0, 0.5, 7.0])
    expected = [x, x * x, 2 / math.pi * math.asin(math.sqrt(x)), 1 - (1 - x) ** 7]
    np.testing.assert_allclose(cumulative_beta(np.full(4, x), a, b), expected, atol=1e-13)


def test_binomial_sums() -> None:
    """P[Beta(k, n − k + 1) ≤ x] is the probability of at least k successes in n."""
    n, k, x = 60, 11, 0.23
    expected = sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(k, n + 1))
    found = cumulative_beta(np.array([x]), np.array([float(k)]), np.array([float(n - k + 1)]))
    assert found[0] == pytest.approx(expected, rel=1e-12)


def test_both_formulas_agree_where_they_meet() -> None:
    a = np.array([LARGE * 0.999, LARGE * 1.001])
    for z in (-3.0, -1.0, 0.0, 2.0):
        x = 0.5 + z / math.sqrt(8 * LARGE)
        low, high = cumulative_beta(np.full(2, x), a, a)
        assert low == pytest.approx(high, abs=2e-3)  # the parameters differ by 0.2 %
        exact = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        assert high == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize(("dim", "count", "probes"), [(50, 0, 3), (50, 1, 3), (50, 7, 5), (2000, 300, 4), (50, 50, 3)])
def test_intervals_cover_what_probes_see(dim: int, count: int, probes: int) -> None:
    """The share of χ² variables is simulated; exact intervals cover at least as often as they say."""
    rng = np.random.default_rng(0)
    inside = rng.chisquare(probes * count, 2000) if count else np.zeros(2000)
    outside = rng.chisquare(probes * (dim - count), 2000) if count < dim else np.zeros(2000)
    weights = inside / (inside + outside)
    low, high = count_interval(weights, weights, dim=dim, num_probes=probes)
    share = ((low <= count) & (count <= high)).mean()
    assert share >= 0.94
    if 0 < count < dim:
        assert share <= 0.995  # no longer than it must be
        assert np.std(weights * dim) == pytest.approx(
            float(standard_error(np.array([float(count)]), dim=dim, num_probes=probes)[0]), rel=0.06
        )


def test_what_is_seen_is_there() -> None:
    low, high = count_interval(np.array([0.0, 1e-5, 1.0]), np.array([0.0, 1e-5, 1.0]), dim=1000, num_probes=8)
    assert low.tolist() == [0, 1, 1000]
    assert high.tolist() == [0, 1, 1000]


def test_nothing_known_is_everything_possible() -> None:
    low, high = count_interval(np.array([0.0]), np.array([1.0]), dim=77, num_probes=2)
    assert (low[0], high[0]) == (0, 77)
