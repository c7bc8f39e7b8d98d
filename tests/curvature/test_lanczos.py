"""Lanczos on operators with a prescribed spectrum: properties of the answer, and of the certificate behind it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samdiag.curvature.krylov_basis import KrylovBasis
from samdiag.curvature.lanczos import DENSE_LIMIT, extremal_eigenpairs
from samdiag.curvature.ritz import KrylovSpectrum, RitzEnds

CPU = torch.device("cpu")


def rotated(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return q @ torch.diag(values) @ q.T


def solve(matrix: Tensor, **changes: object) -> KrylovSpectrum:
    arguments: dict[str, object] = {
        "num_eigenvalues": 3,
        "tol": 1e-3,
        "max_products": 300,
        "generator": torch.Generator().manual_seed(1),
        "device": CPU,
        "dtype": torch.float64,
    }
    return extremal_eigenpairs(lambda v: matrix @ v, len(matrix), **(arguments | changes))  # type: ignore[arg-type]


def network_like(dim: int, lowest: float, seed: int = 0, bulk: float = 0.25) -> Tensor:
    """A few large eigenvalues, a bulk at zero, and a bottom that hides next to it."""
    generator = torch.Generator().manual_seed(seed)
    near_zero = (2 * torch.rand(dim - 6, generator=generator, dtype=torch.float64) - 1) * bulk * lowest
    return torch.cat(
        [torch.tensor([40.0, 11.0, 5.0, -lowest, -0.6 * lowest, -0.3 * lowest], dtype=torch.float64), near_zero]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bottom_is_right_although_it_is_a_thousandth_of_the_top(dtype: torch.dtype) -> None:
    values = network_like(600, lowest=0.04)
    matrix = rotated(values).to(dtype)
    found = solve(matrix, dtype=dtype)
    assert found.bottom[0] == pytest.approx(-0.04, rel=1e-3)
    assert found.top[0] == pytest.approx(40.0, rel=1e-5)
    assert found.bottom_converged[0]
    assert found.top_converged[0]
    assert not found.complete
    assert found.steps < 200


def test_ritz_vectors_are_orthonormal_and_their_residuals_are_what_they_say() -> None:
    matrix = rotated(network_like(500, lowest=1.0))
    found = solve(matrix, tol=1e-2)
    vectors = torch.cat([found.top_vectors, found.bottom_vectors])
    assert torch.allclose(vectors @ vectors.T, torch.eye(6, dtype=torch.float64), atol=1e-8)
    for value, vector in zip((*found.top, *found.bottom), vectors, strict=True):
        assert vector @ matrix @ vector == pytest.approx(value, abs=1e-8)
    residual = torch.linalg.vector_norm(matrix @ found.bottom_vectors[0] - found.bottom[0] * found.bottom_vectors[0])
    assert residual <= 1e-2 * abs(found.bottom[0])


def test_a_tolerance_of_one_end_is_not_the_other_ends() -> None:
    """1 % of lambda_max would call any value near zero converged: the bottom is judged by itself."""
    matrix = rotated(network_like(600, lowest=0.004))
    found = solve(matrix, tol=1e-2, num_eigenvalues=1)
    assert found.bottom[0] == pytest.approx(-0.004, rel=1e-2)


def test_small_dimensions_are_solved_completely_with_multiplicities() -> None:
    values = torch.tensor([-2.0, -2.0, -2.0, 0.0, 0.0, 1.0, 5.0, 5.0], dtype=torch.float64)
    found = solve(rotated(values), num_eigenvalues=5)
    assert found.complete
    assert torch.allclose(torch.tensor(found.all_values, dtype=torch.float64), values, atol=1e-12)
    assert found.bottom == pytest.approx([-2, -2, -2, 0, 0], abs=1e-12)
    assert found.top == pytest.approx([5, 5, 1, 0, 0], abs=1e-12)


def test_breakdown_restarts_in_the_complement_and_finds_repeated_eigenvalues() -> None:
    """Three distinct eigenvalues in 300 dimensions: the Krylov space is exhausted after three steps."""
    values = torch.cat([torch.full((n,), v, dtype=torch.float64) for n, v in ((296, 1.0), (2, -3.0), (2, 7.0))])
    assert len(values) > DENSE_LIMIT
    found = solve(rotated(values), num_eigenvalues=3, tol=1e-6)
    assert found.bottom[:2] == pytest.approx([-3.0, -3.0])
    assert found.bottom[2] == pytest.approx(1.0)
    assert found.top[:2] == pytest.approx([7.0, 7.0])


def test_products_run_out_and_the_answer_says_so() -> None:
    found = solve(rotated(torch.linspace(-1.0, 1.0, 600, dtype=torch.float64)), max_products=12)
    assert found.steps == 12
    assert not found.bottom_converged[0]
    assert not found.top_converged[0]


def test_a_certain_decision_stops_early() -> None:
    matrix = rotated(network_like(600, lowest=0.004))
    seen: list[RitzEnds] = []

    def decided(ends: RitzEnds) -> bool:
        seen.append(ends)
        return len(seen) == 2

    found = solve(matrix, decided=decided)
    assert found.stopped == "decided"
    assert found.steps == 4
    assert solve(matrix).stopped == "converged"


def test_a_zero_operator_is_all_zero() -> None:
    found = solve(torch.zeros(400, 400, dtype=torch.float64))
    assert found.top[0] == 0.0
    assert found.bottom[0] == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), lowest=st.floats(0.01, 10), steps=st.integers(8, 60))
def test_the_bounds_hold_however_early_the_run_stops(seed: int, lowest: float, steps: int) -> None:
    """A Ritz value is above lambda_min at every step, the certificate below it (25 runs must not fail by chance)."""
    values = network_like(400, lowest, seed)
    found = solve(
        torch.diag(values),
        max_products=steps,
        tol=1e-12,
        generator=torch.Generator().manual_seed(seed),
        num_eigenvalues=1,
    )
    low, high = found.bounds(0.9999)
    assert low <= float(values.min()) <= found.bottom[0] + 1e-9
    assert found.top[0] - 1e-9 <= float(values.max()) <= high + 1e-9


def test_the_bound_is_violated_about_as_often_as_its_probability_allows() -> None:
    """At probability 0.5 and with random starts, at most about half of 200 bounds may fail."""
    values = network_like(300, 1.0)
    failures = 0
    for seed in range(200):
        found = solve(
            torch.diag(values),
            max_products=6,
            tol=1e-12,
            num_eigenvalues=1,
            generator=torch.Generator().manual_seed(seed),
        )
        low, _ = found.bounds(0.5)
        failures += low > float(values.min())
    assert failures <= 110


def test_the_bound_is_tight_once_converged() -> None:
    values = network_like(500, 1.0)
    found = solve(torch.diag(values), tol=1e-6, num_eigenvalues=1)
    low, _ = found.bounds(0.99)
    assert low == pytest.approx(-1.0, rel=0.02)


def test_a_bulk_below_float32_resolution_is_resolved_in_float64() -> None:
    """lambda_max 1e4 beside a bulk of 1e-3: a float32 threshold would call every step a breakdown."""
    generator = torch.Generator().manual_seed(0)
    values = 1e-3 * (2 * torch.rand(1000, generator=generator, dtype=torch.float64) - 1)
    values[0] = 1e4
    found = solve(torch.diag(values), num_eigenvalues=1, tol=1e-3)
    low, _ = found.bounds(0.99)
    assert low <= float(values.min()) <= found.bottom[0] + 1e-9
    assert found.bottom[0] == pytest.approx(float(values.min()), rel=1e-2) or not found.bottom_converged[0]


def test_the_bound_holds_after_a_breakdown() -> None:
    """Three distinct eigenvalues: the Krylov space ends after three steps, and the bound is as good as exact."""
    values = torch.cat([torch.full((n,), v, dtype=torch.float64) for n, v in ((296, 1.0), (2, -3.0), (2, 7.0))])
    found = solve(rotated(values), num_eigenvalues=1, tol=1e-6)
    low, high = found.bounds(0.99)
    assert low == pytest.approx(-3.0, abs=1e-3)
    assert high == pytest.approx(7.0, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("capacity", [18, 24])
def test_a_restarted_run_finds_what_the_whole_basis_finds(capacity: int, block: int, dtype: torch.dtype) -> None:
    values = network_like(600, lowest=0.04, bulk=0.95)
    found = solve(
        rotated(values).to(dtype),
        dtype=dtype,
        capacity=capacity,
        block=block,
        num_eigenvalues=1,
        tol=1e-2,
        max_products=2000,
    )
    assert found.restarts > 0
    assert found.stopped == "converged"
    assert found.bottom[0] == pytest.approx(-0.04, rel=2e-3)
    assert found.top[0] == pytest.approx(40.0, rel=1e-3)
    low, high = found.bounds(0.99)
    assert low <= -0.04 * (1 - 1e-6)
    assert low == pytest.approx(-0.04, rel=0.1)
    assert high == pytest.approx(40.0, rel=1e-3)


def test_true_residuals_after_restarts_are_what_the_run_says() -> None:
    matrix = rotated(network_like(600, lowest=0.4, bulk=0.55))
    found = solve(matrix, capacity=20, num_eigenvalues=2, tol=1e-2, max_products=2000)
    pairs = zip(
        (*found.top, *found.bottom),
        (*found.top_residuals, *found.bottom_residuals),
        torch.cat([found.top_vectors, found.bottom_vectors]),
        strict=True,
    )
    for value, said, vector in pairs:
        true = float(torch.linalg.vector_norm(matrix @ vector - value * vector))
        assert true == pytest.approx(said, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("block", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_restarted_bounds_are_violated_about_as_often_as_their_probability_allows(block: int) -> None:
    values = network_like(300, 1.0)
    failures, restarted = 0, 0
    for seed in range(200):
        found = solve(
            torch.diag(values),
            max_products=26,
            capacity=8 + 2 + 2 * block,
            block=block,
            tol=1e-12,
            num_eigenvalues=1,
            generator=torch.Generator().manual_seed(seed),
        )
        restarted += found.restarts
        failures += found.bounds(0.5)[0] > float(values.min())
    assert restarted >= 200
    assert failures <= 110


def test_a_known_start_keeps_the_bound_honest() -> None:
    """Started on an eigenvector that is not the lowest, the random part still makes the bound hold."""
    values = network_like(300, 1.0)
    start = torch.zeros(1, 300, dtype=torch.float64)
    start[0, 4] = 1.0  # the second lowest
    failures = 0
    for seed in range(200):
        found = solve(
            torch.diag(values),
            start=start,
            max_products=8,
            tol=1e-12,
            num_eigenvalues=1,
            generator=torch.Generator().manual_seed(seed),
        )
        failures += found.bounds(0.5)[0] > float(values.min())
    assert failures <= 110


def test_a_good_start_saves_products() -> None:
    values = network_like(600, lowest=0.04, bulk=0.9)
    matrix = rotated(values)
    cold = solve(matrix, num_eigenvalues=1, tol=1e-2)
    near = matrix + 1e-3 * rotated(torch.linspace(-1, 1, 600, dtype=torch.float64), seed=3)
    again = solve(near, num_eigenvalues=1, tol=1e-2, start=torch.cat([cold.top_vectors, cold.bottom_vectors]))
    assert again.steps < 0.8 * solve(near, num_eigenvalues=1, tol=1e-2).steps


def test_a_block_finds_a_cluster_at_once() -> None:
    """A triple lowest eigenvalue: single vectors see one of the three, a block of three sees all."""
    values = network_like(600, lowest=0.5)
    values[3:6] = -0.5
    single = solve(rotated(values), num_eigenvalues=3, tol=1e-4)
    blocked = solve(rotated(values), num_eigenvalues=3, tol=1e-4, block=3, max_products=600)
    assert blocked.bottom == pytest.approx([-0.5] * 3, rel=1e-3)
    assert single.bottom[1] > -0.4


def test_a_reason_to_stop_returns_the_best_answer_so_far() -> None:
    matrix = rotated(network_like(600, lowest=0.04))
    calls: list[int] = []

    def stop() -> str | None:
        calls.append(1)
        return "time limit" if len(calls) >= 10 else None

    found = solve(matrix, stop=stop)
    assert found.stopped == "time limit"
    assert found.steps == 10
    assert found.top[0] == pytest.approx(40.0, rel=1e-3)
    low, _ = found.bounds(0.99)
    assert low <= -0.04 <= found.bottom[0]


def test_the_basis_stays_orthonormal_in_float32() -> None:
    values = network_like(2000, lowest=0.01)
    basis = KrylovBasis(200, 2000, device=CPU, dtype=torch.float32)
    v = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    v /= v.norm()
    for _ in range(200):
        basis.append(v)
        v = values.float() * v
        basis.orthogonalise(v, recent=2)
        v /= v.norm()
    gram = basis.combine(torch.eye(200, dtype=torch.float64)) @ basis.combine(torch.eye(200, dtype=torch.float64)).T
    assert float((gram - torch.eye(200)).abs().max()) < 1e-5


@pytest.mark.parametrize("block", [1, 2])
def test_a_stop_at_any_step_of_a_restarted_run_gives_bounds(block: int) -> None:
    """Right after a restart the residual block is not in the basis: the certificate must not look for it there."""
    values = torch.linspace(-1.0, 2.0, 400, dtype=torch.float64)
    for last in range(1, 40):
        calls: list[int] = []

        def stop(calls: list[int] = calls, last: int = last) -> str | None:
            calls.append(1)
            return "time limit" if len(calls) > last else None

        found = solve(torch.diag(values), capacity=16, tol=1e-8, stop=stop, block=block, num_eigenvalues=1)
        low, high = found.bounds(0.99)
        assert found.stopped == "time limit"
        assert low <= -1.0
        assert high >= 2.0


def test_fewer_products_than_a_block_still_answer() -> None:
    found = solve(rotated(network_like(400, lowest=1.0)), block=5, max_products=3, num_eigenvalues=1)
    assert found.steps == 3
    assert found.bottom[0] <= found.top[0]
