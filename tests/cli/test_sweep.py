"""`samdiag sweep`: the same verdicts as inspect, known thresholds, three media, and every mistake in two lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import nn

from samdiag import Problem
from samdiag.errors import UsageError
from samdiag.measure.measuring import measure
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.sweeping import scanning
from samdiag.reports.schema import report_schema
from samdiag.sweep import Sweep
from samdiag.sweeping import parse_grid
from samdiag.verdicts import judge_all
from tests.cli.conftest import Ran, Run, save

PROBLEM = """
import torch
from torch import nn

import samdiag


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))


def saddle():
    lam = torch.tensor([2.0, -2.0], dtype=torch.float64)
    return samdiag.Problem(
        model=Point(),
        loss=lambda m, _: 0.5 * (lam * m.w * m.w).sum(),
        batches=[0],
        num_samples=lambda _: 1,
        population=1,
    )


def well():
    return samdiag.Problem(
        model=Point(),
        loss=lambda m, _: (1 - torch.cos(m.w[0])) + 0.5 * m.w[1] ** 2,
        batches=[0],
        num_samples=lambda _: 1,
        population=1,
    )
"""


@pytest.fixture
def problems(work: Path) -> Path:
    (work / "own.py").write_text(PROBLEM)
    save({"w": [0.0, 0.0]}, "origin.safetensors")
    save({"w": [math.pi + 1.2, 0.0]}, "hill.safetensors")
    return work


Swept = Callable[..., tuple[Ran, dict[str, Any]]]


@pytest.fixture
def swept(run: Run) -> Swept:
    def call(*arguments: Any) -> tuple[Ran, dict[str, Any]]:
        ran = run("sweep", *arguments, "--format", "json")
        report = json.loads(ran.out)
        jsonschema.validate(report, report_schema(Sweep))
        return ran, report

    return call


def test_the_trap_of_a_usam_saddle_binds_at_half_the_escape_rate(problems: Path, swept: Swept) -> None:
    """x² − y² at its saddle, USAM: half of the rate is kept up to rho = 0.25 (D1), none from 0.5 (A2)."""
    ran, report = swept(
        "origin.safetensors",
        "--problem",
        "own.py:saddle",
        "--variant",
        "usam",
        "--lr",
        "0.01",
        "--rho",
        "0.05:1:log:21",
    )
    assert ran.code == 0
    safe = report["safe"]
    assert safe["binding"] == "saddle trap"
    assert safe["value"] == pytest.approx(0.25, rel=0.01)
    assert dict(map(tuple, safe["bounds"]))["saddle trap"] == pytest.approx(0.25)
    caught = next(d for d in report["dangers"] if d["verdict"] == "saddle-attraction")
    assert caught["low"] == pytest.approx(0.5, rel=0.2)
    assert caught["high"] == 1.0
    for point in report["points"]:
        assert point["retained_escape_rate"] == pytest.approx(max(0.0, 1 - 2 * point["rho"]), abs=1e-9)
    assert report["present_rho"] is None
    assert "sam.rho" not in report["settings"]


def test_the_hallucination_lies_at_its_radius(problems: Path, swept: Swept) -> None:
    """1 − cos x at pi + 1.2: the ridge is 1.2 away and the minimum pi + 1.2."""
    _, report = swept("hill.safetensors", "--problem", "own.py:well", "--lr", "0.05", "--rho", "0.2:6:lin:30")
    assert report["ridge_distance"]["value"] == pytest.approx(1.2, rel=1e-2)
    found = [d for d in report["dangers"] if d["verdict"] == "hallucinated-minimizer"]
    assert found
    assert found[0]["low"] - 0.2 <= math.pi + 1.2 <= found[-1]["high"] + 0.2  # one cell of the grid
    for point in report["points"]:
        rho = point["rho"]
        exact = abs(math.sin(math.pi + 1.2 - rho) / math.sin(1.2))  # SAM steps uphill, towards pi
        assert point["gradient_ratio"]["value"] == pytest.approx(exact, abs=1e-9)


def test_every_radius_is_what_inspect_says_of_it() -> None:
    """Verdict and numbers of a network at several radii, mini-batches and momentum included."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 3, generator=generator, dtype=torch.float64)
    y = torch.tanh(x[:, :1] * x[:, 1:2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    problem = Problem(
        model=model,
        loss=lambda m, b: nn.functional.mse_loss(m(b[0]), b[1]),
        batches=list(zip(x.split(12), y.split(12), strict=True)),
        population=len(x),
    )
    settings = MeasureSettings(rho=1.0, lr=0.05, momentum=0.5, batch_size=12, tol=1e-6)
    radii = (0.05, 0.3, 2.0)
    with scanning(problem, settings, radii[-1]) as scan:
        scanned = [scan.at(rho) for rho in radii]
    for rho, one in zip(radii, scanned, strict=True):
        alone = measure(problem, MeasureSettings(rho=rho, lr=0.05, momentum=0.5, batch_size=12, tol=1e-6))
        assert [f.verdict for f in judge_all(one)] == [f.verdict for f in judge_all(alone)]
        for name in ("gradient_ratio", "gradient_cosine", "loss_change", "update_ratio", "lambda_min", "lambda_max"):
            a, b = getattr(one, name), getattr(alone, name)
            assert a.value == pytest.approx(b.value, rel=1e-8, abs=1e-10), name
        assert one.effective_radius == pytest.approx(alone.effective_radius)
        assert one.batch_update is not None
        assert alone.batch_update is not None
        assert one.batch_update.update_ratio.value == pytest.approx(alone.batch_update.update_ratio.value)
        assert one.lookahead_loss == pytest.approx(alone.lookahead_loss)


def test_quick_takes_one_gradient_a_radius() -> None:
    lam = torch.tensor([2.0, -1.0], dtype=torch.float64)

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.3, 0.2], dtype=torch.float64))

    problem = Problem(
        model=Point(),
        loss=lambda m, _: 0.5 * (lam * m.w * m.w).sum(),
        batches=[0],
        num_samples=lambda _: 1,
        population=1,
    )
    with scanning(problem, MeasureSettings(rho=1.0, lr=0.05), 1.0, trials=False) as scan:
        objective = scan.base.ready.objective
        before = objective.num_gradients, objective.num_products
        for rho in (0.1, 0.2, 0.4):
            scan.at(rho)
        assert (objective.num_gradients - before[0], objective.num_products - before[1]) == (3, 0)


def test_text_and_picture(problems: Path, run: Run) -> None:
    ran = run(
        *("sweep", "origin.safetensors", "--problem", "own.py:saddle", "--variant", "usam", "--lr", "0.01"),
        *("--rho", "0.1,0.3,0.8", "--plot", "scan.svg"),
    )
    assert ran.code == 0, ran.err
    assert "Largest safe rho: 0.2" in ran.out
    assert "saddle trap" in ran.out
    assert "rho 0.8" in ran.out
    assert "picture: scan.svg" in ran.err
    assert (problems / "scan.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--rho", "1:0.1:log:5"), "no grid of positive radii"),
        (("--rho", "a,b"), "no grid of positive radii"),
        (("--rho", "0"), "no grid of positive radii"),
        (("--rho", "0.1:1:cube:5"), "no grid of positive radii"),
        (("--plot", "scan.bmp"), "no known kind of picture"),
        (("--plot", "nowhere/scan.png"), "cannot write nowhere/scan.png"),
        (("--format", "xml"), "--format 'xml' is unknown"),
        (("--problem", "own.py:nothing"), "nothing"),
    ],
)
def test_mistakes_have_two_lines(problems: Path, run: Run, arguments: tuple[str, ...], what: str) -> None:
    ran = run("sweep", "origin.safetensors", "--problem", "own.py:saddle", *arguments)
    assert ran.code == 2
    assert what in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) >= 2
    assert ran.out == ""


def test_a_failure_is_a_record_too(problems: Path, swept: Swept) -> None:
    ran, report = swept("missing.safetensors", "--problem", "own.py:saddle")
    assert ran.code == 2
    assert report["failure"]["what"]
    assert report["points"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1,0.05", (0.05, 0.1)), ("1:4:lin:4", (1.0, 2.0, 3.0, 4.0)), ("1:100:log:3", (1.0, 10.0, 100.0))],
)
def test_grids(text: str, expected: tuple[float, ...]) -> None:
    assert parse_grid(text) == pytest.approx(expected)


def test_a_grid_is_bounded() -> None:
    with pytest.raises(UsageError, match="at most 1000"):
        parse_grid("0.1:1:log:1001")
