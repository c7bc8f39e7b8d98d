"""The hallucinated points in closed form, what attracts to them, and what the experiment makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import grad

from samdiag.gallery import hallucination
from samdiag.gallery.dynamics import run
from samdiag.gallery.hallucination_surfaces import (
    CASES,
    Case,
    cosine_case,
    differenced_jacobian,
    double_well_case,
    hessian,
    random_case,
    ring_case,
    sam_gradient,
    sam_jacobian,
    scanned_ridge,
    sine_case,
    two_wells_case,
)
from samdiag.types import Problem

KNOWN = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text(encoding="utf-8"))["deterministic"]
PROBLEMS = (
    hallucination.cosine,
    hallucination.double_well,
    hallucination.ring,
    hallucination.sine,
    hallucination.two_wells,
)


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def eigenvalues(matrix: torch.Tensor) -> list[float]:
    values = torch.linalg.eigvals(matrix)
    assert values.imag.abs().max() < 1e-9
    return sorted(values.real.tolist(), reverse=True)


@pytest.mark.parametrize("make", CASES)
def test_the_closed_forms(make: Callable[[], Case]) -> None:
    case = make()
    x = tensor(case.point)
    g = grad(case.formula)(x)
    assert float(g.norm()) == pytest.approx(case.grad_norm, rel=1e-12)
    assert (x + case.rho * g / g.norm()).tolist() == pytest.approx(case.perturbed, abs=1e-12)
    assert float(sam_gradient(case.formula, case.rho)(x).norm()) < 1e-14
    assert eigenvalues(sam_jacobian(case.formula, x, case.rho)) == pytest.approx(case.jacobian, abs=1e-12)
    assert eigenvalues(differenced_jacobian(case.formula, x, case.rho)) == pytest.approx(case.jacobian, abs=1e-7)
    assert scanned_ridge(case.formula, x, 4 * case.rho) == pytest.approx(case.ridge, rel=1e-9)
    assert case.lr * max(case.jacobian) < 2


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("halluc_cos_1d", cosine_case()),
        ("halluc_double_well", double_well_case()),
        ("halluc_ring", ring_case()),
        ("halluc_si_yun_sine", sine_case()),
    ],
)
def test_they_are_the_known_cases(name: str, case: Case) -> None:
    known = next(entry for entry in KNOWN if entry["id"] == name)
    assert case.point == pytest.approx(known["point"], abs=1e-15)
    assert case.rho == pytest.approx(known["rho"])
    assert case.jacobian == pytest.approx(sorted(known["J_eigenvalues"], reverse=True))
    assert case.grad_norm == pytest.approx(known["grad_norm"])


@pytest.mark.parametrize("make", CASES)
def test_the_slope_is_the_gradient_of_the_formula(make: Callable[[], Case]) -> None:
    case = make()
    points = np.random.default_rng(1).uniform(-2, 2, (len(case.point), 7))
    expected = [grad(case.formula)(tensor(point)).tolist() for point in points.T]
    assert np.abs(case.slope(points).T - np.array(expected)).max() < 1e-12


@pytest.mark.parametrize("seed", range(12))
def test_random_cases_are_hallucinated_beyond_their_ridge(seed: int) -> None:
    case = random_case(np.random.default_rng(seed))
    x = tensor(case.point)
    assert float(sam_gradient(case.formula, case.rho)(x).norm()) < 1e-12
    assert scanned_ridge(case.formula, x, 4 * case.rho) == pytest.approx(case.ridge, rel=1e-9)
    assert 0 < case.ridge < case.rho
    assert eigenvalues(sam_jacobian(case.formula, x, case.rho)) == pytest.approx(case.jacobian, abs=1e-9)


def test_the_sine_has_the_gradient_of_si() -> None:
    for beta, rho in ((2.0, 0.6), (5.0, 0.1)):
        assert sine_case(beta, rho).grad_norm == pytest.approx(0.1654 * beta * rho, rel=1e-4)


@pytest.mark.parametrize("make", CASES)
def test_every_start_of_the_basin_ends_there(make: Callable[[], Case]) -> None:
    rows = hallucination.start_rows(make(), 40, np.random.default_rng(2))
    assert [row.measured for row in rows] == ["40 of 40", "40 of 40"]
    assert all(row.agrees for row in rows)


@pytest.mark.parametrize("make", [cosine_case, double_well_case, sine_case])
def test_the_basin_ends_where_it_is_said_to(make: Callable[[], Case]) -> None:
    """A start below the lower end of the basin goes elsewhere, and `start_rows` would say so."""
    case = make()
    inside = case.starts(400, np.random.default_rng(3))[0]
    width = inside.max() - inside.min()
    beyond = np.array([[inside.min() - 0.03 * width]])
    ends = run(case.slope, beyond, rho=case.rho, lr=case.lr, num_steps=800)
    assert (case.gap(ends) > 1e-3).all()
    elsewhere = replace(case, starts=lambda count, _rng: np.repeat(beyond, count, axis=1))
    assert not hallucination.start_rows(elsewhere, 3, np.random.default_rng(4))[0].agrees


@pytest.mark.parametrize("make", PROBLEMS)
def test_the_problems_hallucinate(make: Callable[[], Problem]) -> None:
    case = next(made for made in (make_case() for make_case in CASES) if made.name == make.__name__)
    rows = {row.quantity: row for row in hallucination.point_rows(case)}
    assert all(row.agrees for row in rows.values()), [row for row in rows.values() if not row.agrees]
    assert rows[f"{case.name}: samdiag's verdict"].measured == "hallucinated-minimizer"
    problem = make()
    parameters = torch.nn.utils.parameters_to_vector(problem.model.parameters()).detach()
    assert parameters.tolist() == pytest.approx(case.point)
    loss = problem.loss(problem.model, next(iter(problem.batches))).detach()
    assert float(loss) == pytest.approx(float(case.formula(tensor(case.point))))


def test_a_wrong_closed_form_is_noticed() -> None:
    wrong = replace(cosine_case(), jacobian=(1.01,), ridge=1.3, grad_norm=math.sin(1.2) + 1e-6)
    rows = hallucination.point_rows(wrong)
    assert [row.agrees for row in rows] == [False, True, False, False, True]


def test_ridge_rows_hold_and_count() -> None:
    rows = hallucination.ridge_rows(6, np.random.default_rng(5))
    assert all(row.agrees for row in rows), rows
    assert rows[0].measured == "12 of 12"
    assert rows[1].measured == "6 of 6"


def test_two_wells_need_no_maximiser() -> None:
    """On the line of the wells there is a ridge, but across it f is convex there: a saddle, and no maximum at all."""
    case = two_wells_case()
    ridge = tensor([case.rho - case.ridge, 0.0])
    curvature = hessian(case.formula)(ridge)
    assert curvature[0, 0] < 0 < curvature[1, 1]


def test_the_experiment_writes_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STARTS": 10, "PAIRS": 10, "POINTS": 2}.items():
        monkeypatch.setattr(hallucination, name, value)
    said: list[str] = []
    outcome = hallucination.EXPERIMENT.run(tmp_path, 3, said.append)
    assert all(row.agrees for row in outcome.rows), [row for row in outcome.rows if not row.agrees]
    assert {path.name for path in outcome.pictures} == {"hallucination-curves.png", "hallucination-planes.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in outcome.pictures)
    assert len(said) >= len(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_experiment_agrees(tmp_path: Path, seed: int) -> None:
    outcome = hallucination.EXPERIMENT.run(tmp_path, seed, lambda _text: None)
    assert all(row.agrees for row in outcome.rows), [row for row in outcome.rows if not row.agrees]
