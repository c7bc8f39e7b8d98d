"""The level at which constant-rho SAM stops, against the runs that do stop."""

from __future__ import annotations

import numpy as np
import pytest

from samdiag.theory.floor import convergence_floor, sine_example, sine_gradient

from .simulate import sam, trajectory


def test_stalled_runs_lie_below_the_floor() -> None:
    """On convex quadratics with eta ≤ 1/beta a settled run's gradient is below beta·rho, and proportional to rho."""
    rng = np.random.default_rng(0)
    for _ in range(15):
        lam = np.sort(rng.uniform(0.2, 6, 3))
        beta = float(lam[-1])
        lr = float(rng.uniform(0.1, 1.0)) / beta
        settled = []
        for rho in (0.1, 0.05):
            path = trajectory(sam(lam, rho), np.array([[1.0, -0.7, 0.4]]) * rho, lr=lr, steps=3000)[-100:, 0]
            settled.append(float(np.linalg.norm(lam * path, axis=1).max()))
            assert 0 < settled[-1] <= convergence_floor(rho, beta)
        assert settled[0] == pytest.approx(2 * settled[1], rel=0.02)


@pytest.mark.parametrize(("beta", "rho"), [(2.0, 0.6), (5.0, 0.05), (0.3, 3.0)])
def test_sam_stalls_on_the_sine_with_the_stated_numbers(beta: float, rho: float) -> None:
    """From a tenth of the wavelength around, at three step sizes: the gradient stays at 0.1654 beta·rho for ever."""
    example = sine_example(beta, rho)
    starts = example.point + rho * np.linspace(-0.08, 0.08, 9)

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.array([sine_gradient(float(v), beta, rho) for v in x])

    def update(x: np.ndarray) -> np.ndarray:
        return gradient(x + rho * np.sign(gradient(x)))

    for share in (0.05, 0.5, 1.0):
        end = trajectory(update, starts, lr=share / beta, steps=600)[-1]
        assert end == pytest.approx(np.full(9, example.point), abs=1e-6 * rho)
        assert np.abs(gradient(end)) == pytest.approx(np.full(9, example.grad_norm), rel=1e-6)
    assert example.grad_norm == pytest.approx(0.1654 * beta * rho, rel=1e-4)
    assert example.grad_norm < convergence_floor(rho, beta)


def test_the_sine_is_beta_smooth_and_its_numbers_are_its_derivatives() -> None:
    beta, rho, h = 2.0, 0.6, 1e-6
    example = sine_example(beta, rho)
    slopes = {
        x: (sine_gradient(x + h, beta, rho) - sine_gradient(x - h, beta, rho)) / (2 * h)
        for x in (example.point, example.perturbed)
    }
    assert slopes[example.point] == pytest.approx(example.curvature, rel=1e-8)
    assert slopes[example.perturbed] == pytest.approx(example.jacobian, rel=1e-8)
    assert sine_gradient(example.perturbed, beta, rho) == pytest.approx(0.0, abs=1e-15)
    assert example.point + rho == pytest.approx(example.perturbed)
    everywhere = [
        abs(sine_gradient(x + h, beta, rho) - sine_gradient(x - h, beta, rho)) / (2 * h)
        for x in np.linspace(-1, 1, 201)
    ]
    assert max(everywhere) == pytest.approx(beta, rel=1e-3)


def test_on_a_quadratic_the_floor_falls_with_the_step() -> None:
    """What is reached there is the bounce, eta·lam²·rho/(2 − eta·lam), which is beta·rho only at eta·lam = 1."""
    lam, rho = 3.0, 0.2
    for eta_lam in (0.1, 0.5, 1.0):
        path = trajectory(sam(np.array([lam]), rho), np.array([[1.0]]), lr=eta_lam / lam, steps=3000)
        reached = abs(lam * path[-1, 0, 0])
        assert reached == pytest.approx(eta_lam / (2 - eta_lam) * convergence_floor(rho, lam), rel=1e-6)


def test_no_floor_without_positive_curvature() -> None:
    assert convergence_floor(0.5, -1.0) == 0.0
    assert convergence_floor(0.5, 4.0) == 2.0
