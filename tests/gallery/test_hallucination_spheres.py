"""Hallucinated points on spheres: derivatives, the limit rho → D, the bound 3 + 2√2, and the hilltop that repels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import grad

from samdiag.gallery.hallucination_spheres import (
    HILL_HEIGHT,
    SURE_CONDITION,
    Hills,
    Wells,
    attracts_in_the_limit,
    beside_the_second_well,
    beyond_the_hilltop,
    random_curvatures,
    random_hills,
    random_wells,
    settled,
)
from samdiag.gallery.hallucination_surfaces import between_wells, differenced_jacobian, hessian

Array = np.ndarray


def tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def well(wells: Wells, row: int) -> object:
    parts = tensors(wells.first[row], wells.curvature[row], wells.second[row], wells.other[row])
    return lambda w: between_wells(w, *parts)


def hill(hills: Hills, row: int) -> object:
    bowl, place, shape = tensors(hills.bowl[row], hills.place[row], hills.shape[row])
    return lambda w: (w @ bowl @ w / 2) * (1 + HILL_HEIGHT * torch.exp(-(w - place) @ shape @ (w - place) / 2))


@pytest.mark.parametrize("dimensions", [2, 4])
def test_the_derivatives_are_those_of_the_formulas(dimensions: int) -> None:
    rng = np.random.default_rng(0)
    for landscape, formula in (
        (random_wells(3, dimensions, 20.0, rng), well),
        (random_hills(3, dimensions, 5.0, rng), hill),
    ):
        points = rng.standard_normal((3, dimensions))
        for row, x in enumerate(tensors(*points)):
            f = formula(landscape, row)  # type: ignore[arg-type]
            assert landscape.gradient(points)[row] == pytest.approx(grad(f)(x).numpy(), rel=1e-9, abs=1e-11)
            assert landscape.hessian(points)[row] == pytest.approx(hessian(f)(x).numpy(), rel=1e-9, abs=1e-10)


def test_wells_have_the_minima_that_were_asked_for() -> None:
    wells = random_wells(5, 3, 50.0, np.random.default_rng(1))
    for place, curvature in ((wells.first, wells.curvature), (wells.second, wells.other)):
        assert np.abs(wells.gradient(place)).max() < 1e-14
        assert wells.hessian(place) == pytest.approx(curvature, rel=1e-12)


def test_random_curvatures_have_the_condition_that_was_asked_for() -> None:
    values = np.linalg.eigvalsh(random_curvatures(200, 3, 7.0, np.random.default_rng(2)))
    assert values.min() >= 1 - 1e-12
    assert values.max() <= 7 + 1e-12
    assert values.max() > 6.5


def test_the_jacobian_is_that_of_the_sam_gradient() -> None:
    wells = random_wells(4, 2, 4.0, np.random.default_rng(3))
    found = beside_the_second_well(wells, 0.9)
    for row, x in enumerate(tensors(*found.points)):
        numeric = differenced_jacobian(well(wells, row), x, float(found.rho[row]), step=1e-6)  # type: ignore[arg-type]
        expected = np.sort_complex(np.linalg.eigvals(numeric.numpy()))
        assert np.sort_complex(found.jacobian[row]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_wells_of_modest_condition_attract_and_sam_goes_back(dimensions: int) -> None:
    rng = np.random.default_rng(4)
    wells = random_wells(40, dimensions, SURE_CONDITION, rng)
    assert attracts_in_the_limit(wells).all()
    limit, near = beside_the_second_well(wells, 0.999), beside_the_second_well(wells, 0.95)
    assert (limit.found & limit.attracting).all()
    assert near.found.all()
    assert near.shifted_norm.max() < 1e-11
    assert settled(wells, near, rng, offset=0.02, num_steps=5000).all()


def twisted_wells(condition: float) -> Wells:
    """The worst pair of this condition number: H and H+ turn the direction across the line by the same angle, apart."""
    angle = np.arctan(condition**-0.5)  # between v and the flat axis where Hv is turned most
    across = np.array([0.0, 1.0])

    def curvature(sign: float) -> Array:
        turn = sign * angle
        flat = np.array([across[1] * np.sin(turn), across[1] * np.cos(turn)])
        steep = np.array([flat[1], -flat[0]])
        return np.outer(flat, flat) + condition * np.outer(steep, steep)

    return Wells(
        first=np.zeros((1, 2)),
        curvature=curvature(1.0)[None],
        second=np.array([[2.0, 0.0]]),
        other=curvature(-1.0)[None],
    )


def test_the_bound_on_the_condition_is_sharp() -> None:
    assert pytest.approx(5.8284, abs=1e-4) == SURE_CONDITION
    for condition, attracts in ((0.97 * SURE_CONDITION, True), (1.03 * SURE_CONDITION, False)):
        wells = twisted_wells(condition)
        found = beside_the_second_well(wells, 0.9999)
        assert found.found.all()
        assert attracts_in_the_limit(wells).tolist() == [attracts]
        assert found.attracting.tolist() == [attracts]


def test_steep_pairs_attract_as_the_limit_says_and_some_repel() -> None:
    wells = random_wells(400, 2, 1000.0, np.random.default_rng(5))
    expected = attracts_in_the_limit(wells)
    found = beside_the_second_well(wells, 0.9995)
    assert 0 < (~expected).sum() < 60
    assert (found.attracting == expected)[found.found].mean() > 0.99


@pytest.mark.parametrize("dimensions", [2, 3])
def test_beyond_a_hilltop_repels(dimensions: int) -> None:
    found = beyond_the_hilltop(random_hills(60, dimensions, 5.0, np.random.default_rng(6)), 0.02)
    assert found.found.mean() > 0.9
    assert found.shifted_norm[found.found].max() < 1e-10
    assert not (found.attracting & found.found).any()
    if dimensions == 2:
        assert (found.jacobian[found.found].prod(axis=1).real < 0).all()


def test_sam_leaves_the_point_beyond_a_hilltop() -> None:
    rng = np.random.default_rng(7)
    hills = random_hills(30, 2, 5.0, rng)
    found = beyond_the_hilltop(hills, 0.02)
    x = found.points + 1e-6 * rng.standard_normal(found.points.shape)
    for _ in range(3000):
        g = hills.gradient(x)
        shifted = hills.gradient(x + found.rho[:, None] * g / np.linalg.norm(g, axis=1, keepdims=True))
        x = x - (0.5 / np.abs(found.jacobian).max(axis=1))[:, None] * shifted
    assert (np.linalg.norm(x - found.points, axis=1) > 1e-3)[found.found].all()
