"""The exact cases of tests/data/cases.json through the command line: a problem file, a checkpoint, a JSON report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, save

CASES = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text())["deterministic"]
PROBLEM = """
import torch
from torch import cos, nn, sin, tanh

import samdiag


def array(values):
    return torch.tensor(values, dtype=torch.float64)


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros({size}, dtype=torch.float64))


def loss(model, batch):
    w = model.w
    return {f}


def problem():
    return samdiag.Problem(model=Point(), loss=loss, batches=[0], population=1)
"""
ROUNDING = 1e-9  # of the derived values in the file, next to float64


def test_there_are_25() -> None:
    assert len(CASES) == 25


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(case: dict[str, Any], work: Path, inspect: Run, valid: Callable[[Any], None]) -> None:
    (work / "case.py").write_text(PROBLEM.format(size=len(case["point"]), f=case["f"]))
    save({"w": case["point"]}, "point.safetensors")
    ran = inspect(
        "point.safetensors",
        *("--problem", "case.py:problem", "--rho", case["rho"], "--variant", case["variant"]),
        *("--lr", case["eta"], "--momentum", case["gamma"], "--format", "json"),
    )
    report = ran.report
    valid(report)
    assert report["failure"] is None
    assert report["verdict"] in case["expected"]
    errors = any(finding["severity"] == "error" for finding in report["findings"])
    assert ran.code == (1 if errors else 3 if report["verdict"] == "undecided" else 0)

    measured = report["measurements"]
    assert measured["grad_norm"]["value"] == pytest.approx(case["grad_norm"], abs=ROUNDING)
    assert measured["perturbed_grad_norm"]["value"] == pytest.approx(case["sam_grad_norm"], abs=1e-7)
    if "cos" in case:
        assert measured["gradient_cosine"]["value"] == pytest.approx(case["cos"], abs=ROUNDING)

    exact = sorted(case["H_eigenvalues"])
    assert measured["spectrum_complete"]
    assert measured["lambda_min_bound"] <= exact[0] + ROUNDING * max(1.0, abs(exact[0]))
    for ours, theirs in (("bottom_eigenvalues", exact), ("top_eigenvalues", exact[::-1])):
        assert measured[ours]
        for estimate, value in zip(measured[ours], theirs, strict=False):
            within(estimate, value)
    within(measured["lambda_max"], exact[-1])
    within(measured["lambda_min"], exact[0])

    found = measured["jacobian_eigenvalues"]
    if "hallucinated-minimizer" in case["expected"]:
        assert found is not None
    if found is not None and case["J_eigenvalues"] is not None:
        reals = sorted(real for real, _ in found)
        assert reals == pytest.approx(sorted(case["J_eigenvalues"]), abs=1e-5)
        assert all(math.isclose(imaginary, 0.0, abs_tol=1e-6) for _, imaginary in found)


def within(estimate: dict[str, Any], value: float) -> None:
    """The exact value lies within the reported error, up to the rounding of both."""
    assert abs(estimate["value"] - value) <= estimate["error"] + ROUNDING * max(1.0, abs(value))
