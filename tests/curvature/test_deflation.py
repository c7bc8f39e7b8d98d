"""What the residuals of known pairs can move, checked on matrices where everything is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samdiag.curvature.deflation import deflate, nothing_known
from tests.curvature.spectra import DOUBLE, network_like


def test_exact_vectors_have_no_residual() -> None:
    case = network_like()
    known = case.known(4)
    np.testing.assert_allclose(known.values, np.r_[case.values[:4], case.values[-4:]], atol=1e-12)
    assert known.residuals.max() < 1e-11
    v = torch.ones(case.dim, dtype=DOUBLE)
    assert float((known.vectors @ known.project(v)).abs().max()) < 1e-13


@pytest.mark.parametrize("error", [1e-3, 3e-2, 1e-1])
def test_counts_lie_between_the_shifted_ones(error: float) -> None:
    """N(H < t) is between the counts of the known part and of the rest at the shifted points, at every t."""
    case = network_like()
    known = case.known(4, error, seed=2)
    assert len(known.values) >= 1
    identity = torch.eye(case.dim, dtype=DOUBLE)
    projector = identity - known.vectors.T @ known.vectors
    rest = np.sort(torch.linalg.eigvalsh(projector @ case.matrix @ projector + 1e6 * (identity - projector)).numpy())
    points = np.linspace(-1.5, 31.0, 400)
    full, down, up = known.shifts(points)
    for t, w, d, u in zip(points, full, down, up, strict=True):
        truth = (case.values < t).sum()
        low = (known.values < t - w).sum() + (rest < t - w - d).sum()
        high = (known.values < t + w).sum() + (rest < t + w + u).sum()
        assert low <= truth <= high


def test_poor_pairs_are_left_in_the_rest() -> None:
    case = network_like()
    vectors = torch.cat([case.vectors[-1:], torch.ones(1, case.dim, dtype=DOUBLE)])
    known = deflate(case.product, vectors, rounding=0.0)
    assert known.values.tolist() == pytest.approx([30.0], rel=1e-6)


def test_nothing_known_changes_nothing() -> None:
    known = nothing_known(torch.zeros(1, 5))
    v = torch.arange(5.0)
    assert torch.equal(known.project(v), v)
    assert [s.tolist() for s in known.shifts(np.array([1.0, 2.0]))] == [[0, 0]] * 3
