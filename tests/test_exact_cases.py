"""The cases with known answers, through the Python API: verdict, eigenvalues, norms, Jacobian."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import samdiag
from samdiag.types import Diagnosis, Measurements, Problem

CASES = json.loads((Path(__file__).parent / "data" / "cases.json").read_text(encoding="utf-8"))
DETERMINISTIC = {case["id"]: case for case in CASES["deterministic"]}


class Point(nn.Module):
    """A bare parameter vector `w`."""

    def __init__(self, point: list[float], dtype: torch.dtype) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(point, dtype=dtype))


def problem_of(case: dict[str, Any], dtype: torch.dtype) -> Problem:
    names = {"cos": torch.cos, "sin": torch.sin, "tanh": torch.tanh}
    names["array"] = lambda values, *_: torch.tensor(values, dtype=dtype)  # type: ignore[assignment]
    code = compile(case["f"], case["id"], "eval")
    return Problem(
        model=Point(case["point"], dtype),
        loss=lambda model, _batch: eval(code, {**names, "w": model.w}),
        batches=[0],
    )


def diagnose(case: dict[str, Any], dtype: torch.dtype) -> Diagnosis:
    return samdiag.diagnose(
        problem_of(case, dtype), rho=case["rho"], variant=case["variant"], lr=case["eta"], momentum=case["gamma"]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_case_with_a_known_answer(name: str, dtype: torch.dtype) -> None:
    case = DETERMINISTIC[name]
    diagnosis = diagnose(case, dtype)
    m = diagnosis.measurements
    assert m is not None
    assert diagnosis.verdict in case["expected"], [f.message for f in diagnosis.findings]
    tolerance = 2e-5 if dtype == torch.float32 else 1e-9
    assert m.grad_norm.value == pytest.approx(case["grad_norm"], abs=tolerance)
    assert m.perturbed_grad_norm.value == pytest.approx(case["sam_grad_norm"], abs=10 * tolerance)
    _assert_eigenvalues(m, sorted(case["H_eigenvalues"]))
    if case["J_eigenvalues"] is not None and m.jacobian_eigenvalues is not None:
        found = sorted(re for re, _ in m.jacobian_eigenvalues)
        assert found == pytest.approx(sorted(case["J_eigenvalues"]), abs=10 * tolerance)
    if "cos" in case:
        assert m.gradient_cosine.value == pytest.approx(case["cos"], abs=tolerance)
    if case["kind"].startswith("hallucinated"):
        assert m.jacobian_eigenvalues is not None


def _assert_eigenvalues(m: Measurements, expected: list[float]) -> None:
    assert m.spectrum_complete
    for truth, estimate in zip(expected, m.bottom_eigenvalues, strict=False):
        assert estimate.value == pytest.approx(truth, abs=estimate.error + 1e-12)
    for truth, estimate in zip(reversed(expected), m.top_eigenvalues, strict=False):
        assert estimate.value == pytest.approx(truth, abs=estimate.error + 1e-12)


def test_zero_modes_of_the_ring_are_counted() -> None:
    finding = diagnose(DETERMINISTIC["halluc_ring"], torch.float64).findings[0]
    assert finding.evidence["jacobian_zero_modes"] == DETERMINISTIC["halluc_ring"]["zero_modes"]


def test_the_bounce_reads_its_own_curvature() -> None:
    case = DETERMINISTIC["bounce_period2"]
    finding = diagnose(case, torch.float64).findings[0]
    assert finding.evidence["bounced_curvature"] == pytest.approx(10.0)
    assert finding.evidence["sam_edge"] == pytest.approx(case["sam_edge"])


class Teacher(nn.Module):
    """The 2-2-1 tanh network of the case, parameters W1 (row-major), b1, W2, b2."""

    def __init__(self, point: list[float]) -> None:
        super().__init__()
        w = torch.tensor(point, dtype=torch.float64)
        self.hidden, self.out = nn.Linear(2, 2).double(), nn.Linear(2, 1).double()
        with torch.no_grad():
            self.hidden.weight.copy_(w[:4].view(2, 2))
            self.hidden.bias.copy_(w[4:6])
            self.out.weight.copy_(w[6:8].view(1, 2))
            self.out.bias.copy_(w[8:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(torch.tanh(self.hidden(x)))
        return out


def test_the_hallucinating_tanh_network() -> None:
    """x+ is the teacher exactly: f(x+) = 0 and g+ = 0, while the loss at x is 0.0036 and J attracts."""
    case = CASES["network"][0]
    x, y = (torch.tensor(case[k], dtype=torch.float64) for k in ("X", "Y"))
    problem = Problem(
        model=Teacher(case["point"]),
        loss=lambda model, batch: 0.5 * ((model(batch[0]) - batch[1]) ** 2).sum(dim=1).mean(),
        batches=[(x[:25], y[:25]), (x[25:], y[25:])],
        population=len(x),
    )
    diagnosis = samdiag.diagnose(problem, rho=case["rho"], lr=case["eta"], momentum=case["gamma"], batch_size=len(x))
    m = diagnosis.measurements
    assert m is not None
    assert diagnosis.verdict == "hallucinated-minimizer", diagnosis.findings[0].message
    assert m.loss.value == pytest.approx(case["f"], rel=1e-9)
    assert m.perturbed_loss.value == pytest.approx(0.0, abs=1e-20)
    assert m.grad_norm.value == pytest.approx(case["grad_norm"], rel=1e-9)
    assert m.perturbed_grad_norm.value == pytest.approx(0.0, abs=1e-12)
    _assert_eigenvalues(m, sorted(case["H_eigenvalues"]))
    assert m.jacobian_eigenvalues is not None
    assert sorted(re for re, _ in m.jacobian_eigenvalues) == pytest.approx(case["J_eigenvalues"], rel=1e-5)
    assert m.ridge_distance.value is not None
    assert m.ridge_distance.value < case["rho"]
    assert diagnosis.prescription is not None
    assert diagnosis.prescription.rho.recommended is not None
    assert diagnosis.prescription.rho.recommended < m.ridge_distance.value
