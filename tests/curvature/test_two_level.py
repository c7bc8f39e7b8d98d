"""An expensive operator led by a cheap one like it: the answer is the expensive one's, in few of its products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from samdiag.curvature.lanczos import extremal_eigenpairs
from samdiag.curvature.ritz import KrylovSpectrum, RitzEnds
from samdiag.curvature.two_level import Lead, find_lead, led_eigenpairs
from tests.curvature.test_lanczos import CPU, network_like, rotated

DIM = 500


def pair(noise: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """An expensive matrix and a cheap one that differs from it by a random symmetric matrix of norm `noise`."""
    expensive = rotated(network_like(DIM, lowest=0.5, seed=seed, bulk=0.9), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    change = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    change = change + change.T
    change *= noise / float(torch.linalg.matrix_norm(change, 2))
    return expensive.to(dtype), (expensive + change).to(dtype)


def lead_of(cheap: Tensor, seed: int = 0, **changes: Any) -> Lead | None:
    arguments: dict[str, Any] = {
        "tol": 1e-2,
        "max_products": 300,
        "capacity": 300,
        "generator": torch.Generator().manual_seed(seed),
        "device": CPU,
        "dtype": cheap.dtype,
    }
    return find_lead(lambda v: cheap @ v, len(cheap), **(arguments | changes))


def follow(expensive: Tensor, lead: Lead | None, **changes: Any) -> KrylovSpectrum | None:
    assert lead is not None
    arguments: dict[str, Any] = {"num_eigenvalues": 1, "tol": 1e-2, "max_products": 300, "capacity": 400}
    return led_eigenpairs(lambda v: expensive @ v, lead, **(arguments | changes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_both_ends_are_those_of_the_expensive_operator(seed: int, dtype: torch.dtype) -> None:
    expensive, cheap = pair(0.1, seed, dtype)
    truth = torch.linalg.eigvalsh(expensive.double())
    lead = lead_of(cheap, seed)
    found = follow(expensive, lead)
    assert found is not None
    assert found.stopped == "converged"
    for value, vector, true in (
        (found.bottom[0], found.bottom_vectors[0], truth[0]),
        (found.top[0], found.top_vectors[0], truth[-1]),
    ):
        residual = torch.linalg.vector_norm(expensive @ vector - value * vector)
        assert float(residual) <= 1.05e-2 * abs(value)
        assert value == pytest.approx(float(true), rel=1e-3)
    low, _ = found.bounds(0.99)
    assert 4.5 * float(truth[0]) <= low <= float(truth[0]) + 1e-6


def test_it_takes_fewer_products_than_lanczos() -> None:
    expensive, cheap = pair(0.02)
    plain = extremal_eigenpairs(
        lambda v: expensive @ v,
        DIM,
        num_eigenvalues=1,
        tol=1e-2,
        max_products=300,
        generator=torch.Generator().manual_seed(0),
        device=CPU,
        dtype=torch.float64,
    )
    led = follow(expensive, lead_of(cheap))
    assert led is not None
    assert led.steps < 0.75 * plain.steps


def test_residuals_are_what_they_say_for_every_pair() -> None:
    expensive, cheap = pair(0.1)
    found = follow(expensive, lead_of(cheap), num_eigenvalues=2)
    assert found is not None
    assert len(found.bottom) == 2
    for values, residuals, vectors in (
        (found.bottom, found.bottom_residuals, found.bottom_vectors),
        (found.top, found.top_residuals, found.top_vectors),
    ):
        for value, said, vector in zip(values, residuals, vectors, strict=True):
            true = float(torch.linalg.vector_norm(expensive @ vector - value * vector))
            assert true == pytest.approx(said, rel=1e-6, abs=1e-10)


def test_the_proof_fails_about_as_often_as_its_probability_allows() -> None:
    """The lead knows nothing of the lowest direction, nor does the search look for it: only the proof can tell.

    At probability 0.5 at most about half of 200 bounds may be above the truth, however the run ended.
    """
    values = network_like(400, lowest=1.0)
    blind = values.clone()
    blind[3] = 0.0  # the lowest is missing in the cheap operator
    failures = 0
    for seed in range(200):
        lead = lead_of(torch.diag(blind), seed)
        found = follow(torch.diag(values), lead, max_products=12)
        assert found is not None
        failures += found.bounds(0.5)[0] > float(values.min())
    assert 0 < failures <= 110  # never failing would mean that it proves nothing


def test_a_lowest_direction_that_the_lead_does_not_know_is_not_denied() -> None:
    values = network_like(400, lowest=1.0)
    blind = values.clone()
    blind[3] = 0.0
    found = follow(torch.diag(values), lead_of(torch.diag(blind)))
    assert found is not None
    assert found.bounds(0.99)[0] <= -1.0


def test_a_lead_that_does_not_lead_is_given_up() -> None:
    expensive, _ = pair(0.0, seed=0)
    _, other = pair(0.0, seed=9)
    assert follow(expensive, lead_of(other)) is None


def test_no_lead_where_the_cheap_operator_does_not_converge() -> None:
    _, cheap = pair(0.1)
    assert lead_of(cheap, max_products=8) is None


def test_a_reason_to_stop_returns_what_is_known() -> None:
    expensive, cheap = pair(0.1)
    calls: list[int] = []

    def stop() -> str | None:
        calls.append(1)
        return "interrupted" if len(calls) > 3 else None

    found = follow(expensive, lead_of(cheap), stop=stop)
    assert found is not None
    assert found.stopped == "interrupted"
    assert found.steps < 10


def test_a_certain_decision_still_waits_for_the_proof() -> None:
    expensive, cheap = pair(0.1)

    def decided(ends: RitzEnds) -> bool:
        return ends.bottom_residuals[0] < 0.1 * abs(ends.bottom[0])

    found = follow(expensive, lead_of(cheap), decided=decided)
    assert found is not None
    assert found.stopped == "decided"
    assert found.bounds(0.99)[0] > 4.5 * found.bottom[0]


def test_the_proof_goes_as_near_as_it_is_asked_to() -> None:
    expensive, cheap = pair(0.1)
    lead = lead_of(cheap)
    near, far = follow(expensive, lead), follow(expensive, lead, proof_at=lambda lowest: 20 * lowest)
    assert near is not None
    assert far is not None
    assert far.steps < near.steps
    assert far.bounds(0.99)[0] >= 22 * far.bottom[0]


def test_a_convex_operator_needs_a_shift_below_zero() -> None:
    """The lowest Ritz value is positive: the proof must still have a shift below 0 to go to."""
    values = torch.linspace(0.5, 4.0, 400, dtype=torch.float64)
    values[-1] = 20.0
    found = follow(torch.diag(values), lead_of(torch.diag(values) + 1e-3 * torch.eye(400, dtype=torch.float64)))
    assert found is not None
    assert found.bottom[0] == pytest.approx(0.5, rel=1e-2)
    assert -1.0 <= found.bounds(0.99)[0] <= 0.5


def test_a_full_subspace_keeps_the_pairs_that_it_has() -> None:
    expensive, cheap = pair(0.02)
    found = follow(expensive, lead_of(cheap), capacity=16)
    assert found is not None
    assert found.steps == 8
    assert found.bottom_converged[0]
    assert found.top_converged[0]


def test_a_stop_inside_the_lead_leaves_a_rough_one() -> None:
    expensive, cheap = pair(0.1)
    calls: list[int] = []

    def stop() -> str | None:
        calls.append(1)
        return "time limit" if len(calls) > 10 else None

    lead = lead_of(cheap, stop=stop)
    assert lead is not None
    found = follow(expensive, lead, stop=stop)
    assert found is not None
    assert found.stopped == "time limit"
    assert found.top[0] == pytest.approx(40.0, rel=1e-2)
    assert found.bounds(0.99)[0] <= -0.5
