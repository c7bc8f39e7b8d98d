"""Density and counts against prescribed spectra: exact cases, moments, and the coverage of every interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from samdiag.curvature.density import Axis, Quadrature, axis_for, bin_edges, grid, whole_spectrum
from tests.curvature.spectra import Known, few_values, network_like

POINTS = np.array([-1.0, -0.55, -0.21, -0.1, 1e-3, 0.2, 0.45, 0.9, 1.5, 3.0, 10.0])


def below(values: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([(values < t).sum() for t in points], dtype=np.float64)


def covered(case: Known, seeds: range, **how: float) -> NDArray[np.float64]:
    """Share of the seeds whose interval holds the true count, per point."""
    truth = below(case.values, POINTS)
    hits = np.zeros(len(POINTS))
    for seed in seeds:
        found = case.probed(seed, **how).count_below(POINTS)  # type: ignore[arg-type]
        hits += (found.low <= truth) & (truth <= found.high)
    return hits / len(seeds)


def test_exact_rules_leave_the_nominal_error() -> None:
    """Twelve different values, 14 steps: the Beta law is all there is, and intervals are as short as integers allow."""
    shares = covered(few_values(), range(60), probes=4, steps=14)
    assert shares.min() >= 0.85  # 60 draws of 95 %: four standard deviations
    assert 0.90 <= shares.mean() <= 0.995


@pytest.mark.slow
def test_coverage_of_exact_rules_over_many_seeds() -> None:
    shares = covered(few_values(), range(400), probes=4, steps=14)
    assert shares.min() >= 0.92
    assert 0.94 <= shares.mean() <= 0.99


@pytest.mark.parametrize(("count", "error"), [(0, 0.0), (4, 1e-2)])
def test_open_rules_never_fall_short(count: int, error: float) -> None:
    """Few steps and poor eigenvectors: the intervals grow, and still hold at least as often as they say."""
    shares = covered(network_like(), range(25), probes=3, steps=12, count=count, error=error)
    assert shares.mean() >= 0.95
    assert shares.min() >= 0.8


def test_counts_within_and_above() -> None:
    case = few_values()
    found = case.probed(0, probes=6, steps=14)
    within = found.count_between(np.array([-0.3]), np.array([0.45]))
    truth = ((case.values > -0.3) & (case.values < 0.45)).sum()
    assert within.low[0] <= truth <= within.high[0]
    assert within.high[0] - within.low[0] < 40
    above = found.count_above(np.array([1.5]))
    assert above.low[0] <= 9 <= above.high[0]
    assert above.value[0] == pytest.approx(9, abs=5)


def test_known_eigenvalues_are_counted_for_certain() -> None:
    case = network_like()
    found = case.probed(0, probes=2, steps=8, count=4)
    counts = found.count_below(np.array([-1.0, -0.7, -0.55, 5.0, 100.0]))
    assert counts.low.tolist()[:3] == [1, 2, 3]
    assert counts.high.tolist()[:3] == [1, 2, 3]
    assert (counts.low[3], counts.high[3]) == (case.dim - 3, case.dim - 3)
    assert (counts.low[4], counts.high[4]) == (case.dim, case.dim)


def test_deflation_shortens_the_band_of_the_trace() -> None:
    """tr H² outside four known pairs of either end is 1/170 of the whole: the band shrinks by its root."""
    case = network_like()
    plain, deflated = (case.probed(0, probes=6, steps=20, count=count) for count in (0, 4))
    squares = [q.sum_of(lambda v: (v**2)[None, :]) for q in (plain, deflated)]
    widths = [float(b.high[0] - b.low[0]) for b in squares]
    assert widths[1] < widths[0] / 50
    assert squares[1].value[0] == pytest.approx(float((case.values**2).sum()), rel=0.02)


def test_a_complete_spectrum_is_exact() -> None:
    values = [-1.0, 0.0, 0.0, 2.0]
    found = whole_spectrum(values, torch.zeros(4), 1e-9)
    counts = found.count_below(np.array([-2.0, -0.5, 1.0, 3.0]))
    assert counts.value.tolist() == counts.low.tolist() == counts.high.tolist() == [0, 1, 3, 4]
    total = found.sum_of(lambda v: np.abs(v)[None, :])
    assert total.value[0] == total.low[0] == total.high[0] == 3.0


def test_an_eigenvalue_on_the_threshold_is_left_open() -> None:
    found = whole_spectrum([-1.0, 0.5], torch.zeros(2), 1e-6)
    counts = found.count_below(np.array([0.5]))
    assert (counts.low[0], counts.high[0]) == (1, 2)


def test_moments_are_those_of_the_probes() -> None:
    """A rule of m steps has the first 2m − 1 moments of its probe, so that polynomials have no quadrature error."""
    case = network_like()
    found = case.probed(3, probes=1, steps=5)
    z = torch.randn(case.dim, generator=torch.Generator().manual_seed(1003), dtype=torch.float64)
    z = z / torch.linalg.vector_norm(z)
    weights = ((case.vectors @ z) ** 2).numpy()
    for power in range(10):
        scale = float(weights @ np.abs(case.values) ** power)
        assert found.weights @ found.nodes**power == pytest.approx(weights @ case.values**power, abs=1e-9 * scale)


def test_bounds_hold_for_the_probe_itself() -> None:
    """Chebyshev, Markov and Stieltjes: for every probe, at every point, without any probability."""
    case = network_like()
    found = case.probed(5, probes=1, steps=9)
    z = torch.randn(case.dim, generator=torch.Generator().manual_seed(1005), dtype=torch.float64)
    weights = ((case.vectors @ (z / torch.linalg.vector_norm(z))) ** 2).numpy()
    points = np.concatenate([np.linspace(-2, 2, 81) + 1e-7, found.nodes[[0, 4]], [-50.0, 50.0]])
    low, high = found.rules[0].cumulative_bounds(points)
    truth = np.array([weights[case.values < t].sum() for t in points])
    assert (low <= truth + 1e-10).all()
    assert (truth <= high + 1e-10).all()
    assert (high - low).max() < 0.6  # they say something


def density_coverage(seeds: range) -> NDArray[np.float64]:
    case, axis = few_values(), Axis(linear_within=0.5)
    places = axis.place(np.array([-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0]))
    truth = axis.kernel(places, case.values).sum(axis=1)
    hits = np.zeros(len(places))
    for seed in seeds:
        band = case.probed(seed, probes=4, steps=14).density(axis, places)
        hits += (band.low <= truth) & (truth <= band.high)
    return hits / len(seeds)


def test_density_bands_cover() -> None:
    shares = density_coverage(range(60))
    assert 0.88 <= shares.mean() <= 0.99


@pytest.mark.slow
def test_density_bands_cover_over_many_seeds() -> None:
    shares = density_coverage(range(400))
    assert shares.min() >= 0.90
    assert shares.max() <= 0.99
    assert 0.92 <= shares.mean() <= 0.97


def test_the_density_integrates_to_the_number_of_eigenvalues() -> None:
    found = network_like().probed(0, probes=3, steps=12, count=4)
    axis = axis_for(found)
    places = grid(found, axis, 2001)
    assert np.trapezoid(found.density(axis, places).value, places) == pytest.approx(120, rel=1e-3)


def test_edges_take_in_the_spectrum() -> None:
    edges = bin_edges(-0.3, 100.0, decades=3, per_decade=2)
    assert edges[0] <= -0.3
    assert edges[-1] >= 100.0
    assert (np.diff(edges) > 0).all()
    inner = np.sort(np.abs(edges))[:2]
    np.testing.assert_allclose(inner, 0.1, rtol=2e-3)
    psd = bin_edges(0.0, 5.0, decades=3, per_decade=3)
    assert psd[0] < 0 < psd[1]
    flat = bin_edges(0.0, 0.0, decades=3, per_decade=3)
    assert len(flat) == 2


def test_a_flat_operator_has_its_mass_at_zero() -> None:
    def product(v: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(v)

    from samdiag.curvature.deflation import nothing_known
    from samdiag.curvature.density import quadrature

    like = torch.zeros(300)
    found: Quadrature = quadrature(
        product,
        300,
        known=nothing_known(like[None]),
        num_probes=2,
        num_steps=5,
        generator=torch.Generator().manual_seed(0),
        like=like,
        rounding=1e-12,
    )
    counts = found.count_between(np.array([-1e-6]), np.array([1e-6]))
    assert (counts.low[0], counts.high[0]) == (300, 300)
