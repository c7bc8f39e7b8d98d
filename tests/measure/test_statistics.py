"""Standard errors and noise from unequal batches, against Monte Carlo."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samdiag.measure.statistics import BatchValues, trace_of_noise

COUNTS = [8, 8, 8, 8, 8, 3]


def batch_means(generator: torch.Generator, dim: int, sigma: float) -> torch.Tensor:
    """Means of batches of COUNTS samples from N(0, sigma² I): [num_batches, dim]."""
    return torch.stack(
        [sigma * torch.randn(n, dim, generator=generator, dtype=torch.float64).mean(dim=0) for n in COUNTS]
    )


def test_the_per_sample_variance_is_unbiased_with_a_ragged_last_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    found = [
        BatchValues(COUNTS, batch_means(generator, 1, 3.0)[:, 0].tolist()).per_sample_variance() for _ in range(4000)
    ]
    assert sum(v or 0.0 for v in found) / len(found) == pytest.approx(9.0, rel=0.05)


def test_the_standard_error_covers_the_true_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(2000):
        values = BatchValues(COUNTS, batch_means(generator, 1, 1.0)[:, 0].tolist())
        error = values.standard_error(None)
        assert error is not None
        covered += abs(values.mean) <= 2 * error
    assert 0.85 < covered / 2000 < 0.97  # Student's t with five degrees of freedom at 2: 0.90


def test_the_noise_trace_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(2)
    total = []
    for _ in range(1500):
        g = batch_means(generator, 20, 2.0)
        mean = (torch.tensor(COUNTS, dtype=torch.float64)[:, None] * g).sum(dim=0) / sum(COUNTS)
        found = trace_of_noise(COUNTS, (g**2).sum(dim=1).tolist(), float(mean @ mean))
        assert found is not None
        total.append(found[0])
    assert sum(total) / len(total) == pytest.approx(20 * 4.0, rel=0.03)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-1e3, 1e3)), min_size=2, max_size=20))
def test_the_mean_is_weighted_and_the_whole_population_has_no_error(batches: list[tuple[int, float]]) -> None:
    counts, values = [n for n, _ in batches], [v for _, v in batches]
    b = BatchValues(counts, values)
    flat = [v for n, v in batches for _ in range(n)]
    assert b.mean == pytest.approx(math.fsum(flat) / len(flat), abs=1e-9)
    assert b.standard_error(sum(counts)) == 0.0
    larger, unlimited = b.standard_error(2 * sum(counts)), b.standard_error(None)
    assert larger is not None
    assert unlimited is not None
    assert larger == pytest.approx(unlimited * math.sqrt(0.5))


def test_one_batch_says_nothing_about_its_error() -> None:
    assert BatchValues([5], [1.0]).standard_error(None) is None
    assert BatchValues([5], [1.0]).standard_error(5) == 0.0
    assert trace_of_noise([5], [1.0], 1.0) is None
