"""Attraction by a Jacobian, against the iterated linear map; the reduced Jacobian, against the dense one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.theory.hallucination import is_attracting, reduced_jacobian_eigenvalues

from .simulate import heavy_ball, sam


def blocks(rng: np.random.Generator, pairs: int, reals: int, zeros: int = 0) -> np.ndarray:
    """A random real matrix with complex pairs, real eigenvalues and exact zero modes, in a skewed basis."""
    size = 2 * pairs + reals + zeros
    core = np.zeros((size, size))
    for i in range(pairs):
        a, b = rng.uniform(-0.3, 2.5), rng.uniform(0.1, 2.5)
        core[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[a, b], [-b, a]]
    for i in range(2 * pairs, 2 * pairs + reals):
        core[i, i] = rng.uniform(-0.4, 4)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0] + 0.2 * rng.normal(size=(size, size))
    return np.asarray(basis @ core @ np.linalg.inv(basis))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_is_attracting_by_iterating_the_map(momentum: float) -> None:
    rng = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(60):
        matrix = blocks(rng, int(rng.integers(0, 3)), int(rng.integers(1, 3)))
        lr = float(rng.uniform(0.02, 0.6))
        size = len(matrix)
        eye = np.eye(size)
        step = np.block([[eye - lr * matrix, -lr * momentum * eye], [matrix, momentum * eye]])
        if abs(np.abs(np.linalg.eigvals(step)).max() - 1) < 0.004:
            continue
        with np.errstate(all="ignore"):
            start = rng.normal(size=size)
            end = heavy_ball(lambda x, m=matrix: m @ x, start, lr=lr, momentum=momentum, steps=4000)
        simulated = bool(np.abs(end).max() < 1e-3)
        attracting, zeros = is_attracting(list(np.linalg.eigvals(matrix)), 1e-9, lr, momentum)
        assert (attracting, zeros) == (simulated, 0)
        seen[simulated] += 1
    assert min(seen.values()) >= 5


def test_a_complex_pair_with_positive_real_part_can_repel() -> None:
    """1 ± 3i at eta 0.5: Re > 0, yet the step spirals out; a small step contracts."""
    matrix = np.array([[1.0, 3.0], [-3.0, 1.0]])
    values = list(np.linalg.eigvals(matrix))
    for lr, expected in ((0.5, False), (0.05, True)):
        end = heavy_ball(lambda x: matrix @ x, np.array([1.0, 0.0]), lr=lr, steps=200)
        assert bool(np.abs(end).max() < 1.0) is expected
        assert is_attracting(values, 0.0, lr, 0.0)[0] is expected


def test_zero_modes_are_counted_and_stay_where_they_are() -> None:
    rng = np.random.default_rng(1)
    spread = np.diag([2.0, 1.0, 0.0, 0.0])
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    matrix = basis @ spread @ basis.T
    assert is_attracting(list(np.linalg.eigvals(matrix)), 1e-9, 0.1, 0.0) == (True, 2)
    end = heavy_ball(lambda x: matrix @ x, rng.normal(size=4), lr=0.1, steps=4000)
    assert np.abs(matrix @ end).max() < 1e-9
    assert is_attracting([0.0, 0.0], 1e-9, 0.1, 0.0) == (False, 2)


def test_reduced_jacobian_is_exact_when_the_span_holds_all_of_h_plus() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        dim = int(rng.integers(4, 12))
        rank = int(rng.integers(2, dim + 1))
        vectors = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:, :rank]
        values = rng.normal(size=rank)
        h_plus = vectors @ np.diag(values) @ vectors.T
        here = rng.normal(size=(dim, dim))
        here = here + here.T
        u = rng.normal(size=dim)
        u /= np.linalg.norm(u)
        bracket = np.eye(dim) + 0.7 * (np.eye(dim) - np.outer(u, u)) @ here
        weight_decay = float(rng.choice([0.0, 0.1]))
        dense = np.linalg.eigvals(h_plus @ bracket + weight_decay * np.eye(dim))
        reduced = reduced_jacobian_eigenvalues(values, vectors.T @ bracket @ vectors, weight_decay)
        for value in reduced:
            assert np.abs(dense - value).min() < 1e-7 * max(1.0, np.abs(dense).max())
        rest = [v for v in dense if np.abs(np.array(reduced) - v).min() > 1e-7 * max(1.0, np.abs(dense).max())]
        assert all(abs(v - weight_decay) < 1e-6 for v in rest)


@pytest.mark.parametrize(("rho", "curvature"), [(1.2, 2.0), (1.5, 2.0), (1.9, 2.0)])
def test_double_well_hallucination_attracts_the_simulated_optimiser(rho: float, curvature: float) -> None:
    """f = (x² − 1)²/4: x_h = rho − 1, x+ = −1, J = f''(−1) = 2."""
    assert reduced_jacobian_eigenvalues(np.array([curvature]), np.eye(1)) == [complex(2.0)]
    assert is_attracting([2.0], 0.0, 0.05, 0.0) == (True, 0)

    def update(x: np.ndarray) -> np.ndarray:
        g = x**3 - x
        shifted = x + rho * np.sign(g)
        return np.asarray(shifted**3 - shifted)

    end = heavy_ball(update, np.array([rho - 1 + 0.02]), lr=0.05, steps=2000)
    assert math.isclose(end[0], rho - 1, abs_tol=1e-9)


def test_a_quadratic_has_no_hallucination_but_its_saddle_ball_repels() -> None:
    """On |z| = rho along q_−, x+ is the saddle: g+ = 0, J = diag(2·2, −2) repels, and so does the simulation."""
    lam, rho = np.array([2.0, -2.0]), 0.5
    here = np.diag(lam)
    u = np.array([0.0, -1.0])
    jacobian = np.diag(lam) @ (np.eye(2) + rho / 1.0 * (np.eye(2) - np.outer(u, u)) @ here)
    assert sorted(np.diag(jacobian)) == [-2.0, 4.0]
    assert is_attracting([4.0, -2.0], 0.0, 0.001, 0.0) == (False, 0)
    end = heavy_ball(sam(lam, rho), np.array([[0.0, 0.501]]), lr=0.001, steps=5000)
    assert abs(end[0, 1]) > 5.0
