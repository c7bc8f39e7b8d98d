"""What the forecast simulates beside the point itself: hand-made spectra of a sample with and without a bias."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from samdiag.instruments import SolverRun
from samdiag.measure.forecast import SHIFT, Basis, _nearby
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import Spectrum
from samdiag.types import Estimate

IN_SAMPLE = [-0.6, -0.1, 0.3, 2.0]


def spectrum(bottom_bias: float | None, top_bias: float | None) -> Spectrum:
    """Of the diagonal matrix IN_SAMPLE, its ends held against other samples; each bar is 0.05 + 2·0.01."""

    def ends(values: list[float], bias: float | None) -> tuple[Estimate, ...]:
        return tuple(Estimate(value=v - (bias or 0.0), error=0.05, sampling_error=0.01, bias=bias) for v in values)

    vectors = torch.eye(4, dtype=torch.float64)
    return Spectrum(
        top=ends([2.0], top_bias),
        top_vectors=vectors[3:],
        bottom=ends([-0.6, -0.1], bottom_bias),
        bottom_vectors=vectors[:2],
        complete=True,
        lower_bound=-0.6,
        run=SolverRun(stopped="converged", steps=4),
        rounding=1e-15,
        all_values=IN_SAMPLE,
        all_vectors=vectors,
    )


def nearby(found: Spectrum) -> Any:
    here = SimpleNamespace(norm=1.0)
    gap: Any = SimpleNamespace(here=here, grad_norm=Estimate(value=1.0, sampling_error=0.0))
    assert found.all_vectors is not None
    basis = Basis(vectors=found.all_vectors, gradient=np.array([0.1, 0.2, 0.3, 0.9]), position=np.ones(4))
    return _nearby(found, basis, gap, MeasureSettings(rho=0.2, lr=0.1))


def test_the_runs_cover_the_interval_for_all_the_data() -> None:
    """These samples exaggerate: −0.6 is −0.3 ± 0.07 for all of them, and 2 is 1.5 ± 0.07."""
    runs = nearby(spectrum(-0.3, 0.5))
    assert runs.lam[0] == pytest.approx(IN_SAMPLE)  # the samples themselves: the model is held to them
    assert runs.lam[:, 0].max() == pytest.approx(-0.3 + 0.07)
    assert runs.lam[:, 3].min() == pytest.approx(1.5 - 0.07)
    assert runs.lam[-1] == pytest.approx([-0.3, 0.2, 0.3, 1.5])
    assert runs.lam[3] == pytest.approx([-0.3 + 0.07, 0.2 + 0.07, 0.3 + 0.07, 1.5 + 0.07])
    assert runs.lam[4] == pytest.approx([-0.3 - 0.07, 0.2 - 0.07, 0.3 - 0.07, 1.5 - 0.07])
    assert len(runs.lam) == len(runs.gradient) == len(runs.shift) == len(runs.rho)
    assert runs.gradient[-1] == pytest.approx([0.1, 0.2, 0.3, 0.9], abs=1e-5)


def test_without_a_bias_the_bars_lie_about_the_samples() -> None:
    runs = nearby(spectrum(None, None))
    assert runs.lam[3] - runs.lam[0] == pytest.approx([0.07] * 4)
    assert runs.lam[0] - runs.lam[4] == pytest.approx([0.07] * 4)
    assert (runs.lam[5:] == runs.lam[0]).all()
    assert runs.rho[1] == pytest.approx(0.2 * (1 + SHIFT))


def test_where_the_ends_overlap_the_bottom_speaks_for_negative_eigenvalues() -> None:
    found = spectrum(-0.3, 0.5)
    wide = tuple(Estimate(value=v - 0.5, bias=0.5) for v in reversed(IN_SAMPLE))
    runs = nearby(dataclasses.replace(found, top=wide))
    assert runs.lam[-1] == pytest.approx([-0.3, 0.2, 0.3 - 0.5, 1.5])
