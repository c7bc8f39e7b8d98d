"""Attraction by a Jacobian, against the iterated linear map; the reduced Jacobian, against the dense one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdiag.theory.hallucination import (
    check_sphere,
    eigenvalues_beside,
    is_attracting,
    is_certified,
    reduced_jacobian,
    sam_jacobian,
    zero_modes,
)

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


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_is_attracting_by_iterating_the_map(momentum: float, nesterov: bool) -> None:
    rng = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(60):
        matrix = blocks(rng, int(rng.integers(0, 3)), int(rng.integers(1, 3)))
        lr = float(rng.uniform(0.02, 0.6))
        size = len(matrix)
        eye = np.eye(size)
        pull = (1 + momentum, momentum**2) if nesterov else (1.0, momentum)
        step = np.block([[eye - lr * pull[0] * matrix, -lr * pull[1] * eye], [matrix, momentum * eye]])
        if abs(np.abs(np.linalg.eigvals(step)).max() - 1) < 0.004:
            continue
        with np.errstate(all="ignore"):
            start = rng.normal(size=size)
            run = {"lr": lr, "momentum": momentum, "steps": 4000, "nesterov": nesterov}
            end = heavy_ball(lambda x, m=matrix: m @ x, start, **run)
        simulated = bool(np.abs(end).max() < 1e-3)
        values = list(np.linalg.eigvals(matrix))
        attracting, zeros = is_attracting(values, 1e-9, lr, momentum, nesterov=nesterov)
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
        reduced = np.linalg.eigvals(reduced_jacobian(values, vectors.T @ bracket @ vectors, weight_decay))
        for value in reduced:
            assert np.abs(dense - value).min() < 1e-7 * max(1.0, np.abs(dense).max())
        rest = [v for v in dense if np.abs(reduced - v).min() > 1e-7 * max(1.0, np.abs(dense).max())]
        assert all(abs(v - weight_decay) < 1e-6 for v in rest)


@pytest.mark.parametrize(("rho", "curvature"), [(1.2, 2.0), (1.5, 2.0), (1.9, 2.0)])
def test_double_well_hallucination_attracts_the_simulated_optimiser(rho: float, curvature: float) -> None:
    """f = (x² − 1)²/4: x_h = rho − 1, x+ = −1, J = f''(−1) = 2."""
    assert reduced_jacobian(np.array([curvature]), np.eye(1)) == np.array([[2.0]])
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


class Wells:
    """f = −log Σ exp(−½(x − m)ᵀA(x − m)/T)·T: strict minima close to the centres m, far apart in units of √T."""

    def __init__(self, centres: list[np.ndarray], matrices: list[np.ndarray], temperature: float = 0.02) -> None:
        self.centres, self.matrices, self.temperature = centres, matrices, temperature

    def _parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slopes = np.array([a @ (x - m) for m, a in zip(self.centres, self.matrices, strict=True)])
        heights = np.array([0.5 * (x - m) @ s for m, s in zip(self.centres, slopes, strict=True)])
        weights = np.exp(-(heights - heights.min()) / self.temperature)
        return weights / weights.sum(), slopes

    def gradient(self, x: np.ndarray) -> np.ndarray:
        weights, slopes = self._parts(x)
        return np.asarray(weights @ slopes)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        weights, slopes = self._parts(x)
        mean = weights @ slopes
        spread = (weights[:, None] * slopes).T @ slopes - np.outer(mean, mean)
        return np.asarray(np.tensordot(weights, np.array(self.matrices), 1) - spread / self.temperature)

    def sam(self, x: np.ndarray, rho: float) -> np.ndarray:
        g = self.gradient(x)
        return self.gradient(x + rho * g / np.linalg.norm(g))

    def beside(self, rho: float) -> np.ndarray:
        """The hallucinated point beside the second centre with x+ at the first: ∇f radial on the sphere, by Newton."""
        start, end = self.centres
        x = end + (1 - rho / np.linalg.norm(end - start)) * (start - end)
        for _ in range(60):
            # x is where A2(x − m2) = t(m1 − x) and |x − m1| = rho, both wells being exact this far apart
            outward = (x - start) / np.linalg.norm(x - start)
            x = start + rho * outward
            g = self.gradient(x)
            tangent = g - (g @ outward) * outward
            h = self.hessian(x)
            project = np.eye(len(x)) - np.outer(outward, outward)
            lagrange = project @ (h - (g @ outward) / rho * np.eye(len(x))) @ project + np.outer(outward, outward)
            x = x - np.linalg.solve(lagrange, tangent)
        return start + rho * (x - start) / np.linalg.norm(x - start)


def random_well(rng: np.random.Generator, dim: int) -> np.ndarray:
    basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return np.asarray(basis @ np.diag(rng.uniform(0.5, 3, dim)) @ basis.T)


def returns(wells: Wells, point: np.ndarray, rho: float, jacobian: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether simulated SAM comes back to `point` from beside it, at a step well below the edge."""
    lr = 0.2 / np.abs(np.linalg.eigvals(jacobian)).max()
    start = rng.normal(size=point.size)
    start *= 1e-3 * np.linalg.norm(wells.gradient(point)) / np.linalg.norm(start)
    x = point + start
    for _ in range(4000):
        x = x - lr * wells.sam(x, rho)
        if not np.linalg.norm(x - point) < 5 * np.linalg.norm(start):
            return False
        if np.linalg.norm(x - point) < 0.05 * np.linalg.norm(start):
            return True
    return bool(np.linalg.norm(x - point) < np.linalg.norm(start))


def test_the_jacobian_is_the_derivative_of_the_update() -> None:
    rng = np.random.default_rng(5)
    wells = Wells([np.zeros(4), rng.normal(size=4)], [random_well(rng, 4), random_well(rng, 4)], temperature=0.7)
    for rho, weight_decay in ((0.3, 0.0), (1.1, 0.2)):
        x, h = rng.normal(size=4), 1e-6
        g = wells.gradient(x)
        ahead = x + rho * g / np.linalg.norm(g)
        jacobian = sam_jacobian(wells.hessian(ahead), wells.hessian(x), g, rho, weight_decay)
        for j, e in enumerate(np.eye(4)):
            up, down = (wells.sam(x + s * h * e, rho) + weight_decay * (x + s * h * e) for s in (1, -1))
            assert jacobian[:, j] == pytest.approx((up - down) / (2 * h), abs=1e-7)


def test_two_minima_make_a_hallucinated_point_on_the_sphere_and_usually_an_attractor() -> None:
    """10 random pairs of wells: the sphere's two conditions hold, x+ is the other minimum, SAM returns to x_h."""
    rng = np.random.default_rng(6)
    attracting = 0
    for _ in range(10):
        dim = int(rng.integers(2, 5))
        direction = rng.normal(size=dim)
        direction /= np.linalg.norm(direction)
        wells = Wells([np.zeros(dim), 2.0 * direction], [random_well(rng, dim), random_well(rng, dim)])
        rho = 1.98
        x = wells.beside(rho)
        g = wells.gradient(x)
        check = check_sphere(x, np.zeros(dim), g)
        assert check.radius == pytest.approx(rho)
        assert check.holds(1e-6)
        assert np.linalg.norm(g) > 1e-3
        assert np.linalg.norm(wells.sam(x, rho)) < 1e-6
        jacobian = sam_jacobian(wells.hessian(np.zeros(dim)), wells.hessian(x), g, rho)
        by_jacobian = bool(np.linalg.eigvals(jacobian).real.min() > 0)
        beside = eigenvalues_beside(*wells.matrices, direction)
        assert all(v.real > 0 for v in beside) is by_jacobian
        assert returns(wells, x, rho, jacobian, rng) is by_jacobian
        attracting += by_jacobian
    assert attracting >= 9


def test_two_strict_minima_can_make_a_repeller() -> None:
    """The counter-example: strongly and oppositely tilted wells. The point exists, and SAM leaves it."""
    matrices = [np.array([[10.0, 3.0], [3.0, 1.0]]), np.array([[10.0, -3.0], [-3.0, 1.0]])]
    assert all(np.linalg.eigvalsh(m).min() > 0 for m in matrices)
    n = np.array([1.0, 0.0])
    assert [v.real for v in eigenvalues_beside(*matrices, n)] == pytest.approx([-8.0])
    wells = Wells([np.zeros(2), 2.0 * n], matrices, temperature=0.005)
    for rho in (1.999, 1.99):
        x = wells.beside(rho)
        check = check_sphere(x, np.zeros(2), wells.gradient(x))
        assert check.holds(1e-6)
        assert np.linalg.norm(wells.sam(x, rho)) < 1e-6
        jacobian = sam_jacobian(matrices[0], wells.hessian(x), wells.gradient(x), rho)
        assert np.linalg.eigvals(jacobian).real.min() < 0
        assert not returns(wells, x, rho, jacobian, np.random.default_rng(7))


@pytest.mark.parametrize(("beyond", "attracts"), [(0.3, False), (1.0, False), (1.3, False), (1.4, True), (2.0, True)])
def test_the_point_beyond_an_isolated_maximiser_attracts_only_far_from_it(beyond: float, attracts: bool) -> None:
    """PARK Thm 2.2's kind of point on −cos x − cos y: J = {1, 1 − (pi + d)cot d}; attracting from d = 1.352 on."""
    point = np.full(2, math.pi + beyond)
    rho = math.sqrt(2) * (math.pi + beyond)
    g = np.sin(point)
    assert check_sphere(point, np.zeros(2), g).holds(1e-12)
    jacobian = sam_jacobian(np.eye(2), np.diag(np.cos(point)), g, rho)
    second = 1 - (math.pi + beyond) / math.tan(beyond)
    assert sorted(np.linalg.eigvals(jacobian).real) == pytest.approx(sorted([1.0, second]))
    assert (second > 0) is attracts
    x = point + np.array([1e-4, -1e-4])
    for _ in range(3000):
        g = np.sin(x)
        x = x - 0.02 * np.sin(x + rho * g / np.linalg.norm(g))
    assert bool(np.linalg.norm(x - point) < 1e-4) is attracts


def test_beyond_a_maximiser_the_nearby_point_repels_in_every_even_dimension() -> None:
    rng = np.random.default_rng(8)
    for dim in (2, 3, 4, 5):
        for _ in range(40):
            minimum, other = random_well(rng, dim), -random_well(rng, dim)
            n = rng.normal(size=dim)
            n /= np.linalg.norm(n)
            jacobian = minimum @ (np.eye(dim) + 1e5 * (np.eye(dim) - np.outer(n, n)) @ other)
            assert np.sign(np.linalg.det(jacobian)) == (-1) ** (dim - 1)
            if dim % 2 == 0:
                assert np.linalg.eigvals(jacobian).real.min() < 0
            commuting = sorted(v.real for v in eigenvalues_beside(minimum, -minimum, n))
            assert commuting[-1] < 0


def test_zero_modes_come_from_the_flat_directions_of_the_minimum() -> None:
    """The ring (|x|² − 1)²/4 in d dimensions: d − 1 flat directions at x+, as many zero modes of J."""
    for dim in (2, 3, 5):
        rho = 1.4
        x = np.zeros(dim)
        x[0] = rho - 1

        def hessian(p: np.ndarray) -> np.ndarray:
            return np.asarray((p @ p - 1) * np.eye(len(p)) + 2 * np.outer(p, p))

        g = (x @ x - 1) * x
        ahead = x + rho * g / np.linalg.norm(g)
        jacobian = sam_jacobian(hessian(ahead), hessian(x), g, rho)
        values = [complex(v) for v in np.linalg.eigvals(jacobian)]
        assert zero_modes(values, 1e-9) == dim - 1
        assert is_attracting(values, 1e-9, 0.05, 0.0) == (True, dim - 1)


def ridge_distance(wells: Wells, x: np.ndarray, longest: float) -> float:
    """First s on a fine grid with u·∇f(x + s u) ≤ 0, infinite without one."""
    g = wells.gradient(x)
    unit = g / np.linalg.norm(g)
    scan = np.linspace(0, longest, 601)[1:]
    return float(next((s for s in scan if unit @ wells.gradient(x + s * unit) <= 0), math.inf))


def test_a_hallucinated_point_is_never_certified() -> None:
    """Every point built beside a second minimum has its ridge before rho; 1 − cos x has it at pi − x exactly."""
    for x in (0.5, 2.0):
        ridge = math.pi - x
        for share in np.linspace(0.01, 0.999, 50):
            assert is_certified(share * ridge, ridge)
            assert math.sin(x + share * ridge) > 0
        assert not is_certified(ridge, ridge)
        assert math.sin(x + ridge) == pytest.approx(0.0, abs=1e-12)
    rng = np.random.default_rng(9)
    for _ in range(8):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        wells = Wells([np.zeros(3), 2.0 * direction], [random_well(rng, 3), random_well(rng, 3)])
        x = wells.beside(1.9)
        ridge = ridge_distance(wells, x, 3.0)
        assert not is_certified(1.9, ridge)
        assert is_certified(0.5 * ridge, ridge)
        assert np.linalg.norm(wells.sam(x, 0.5 * ridge)) > 0.01 * np.linalg.norm(wells.gradient(x))
