"""The gate on real checkpoints: points of Beale's function, whose Hessian at (0, 1) is [[0, 27.75], [27.75, 0]]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from samdiag import pipeline
from samdiag.gates import Gate, gate_of, load_baseline, update_baseline
from samdiag.outcomes import Outcome
from samdiag.types import Diagnosis

SETTINGS = {"model": "beale", "data": "beale", "loss": "model", "sam.rho": 0.05, "sam.variant": "usam", "sam.lr": 1e-4}


@pytest.fixture
def saddle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Beale's saddle, captured by USAM beyond rho = 1/27.75 = 0.036."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    return at(tmp_path, 0.0, 1.0)


def at(folder: Path, x: float, y: float) -> Path:
    from samdiag.gallery.functions import beale_model

    (name,) = beale_model().state_dict()
    save_file({name: torch.tensor([x, y], dtype=torch.float64)}, folder / "point.safetensors")
    return folder / "point.safetensors"


def inspect(path: Path, **changes: Any) -> Diagnosis:
    return pipeline.inspect(path, overrides=SETTINGS | {k.replace("__", "."): v for k, v in changes.items()})


def judged(path: Path, diagnosis: Diagnosis, **asked: Any) -> Outcome:
    return gate_of(diagnosis, baseline=load_baseline(path.parent / "base.json", missing_ok=True), **asked).judge(
        diagnosis
    )


def test_requirements_at_a_known_hessian(saddle: Path) -> None:
    diagnosis = inspect(saddle)
    assert diagnosis.verdict == "saddle-attraction", diagnosis
    for requirement, code in {
        "lambda_max < 27.76": 0,
        "lambda_max < 27.74": 1,
        "lambda_max == 27.75": 3,  # to rounding, but not exactly
        "lambda_min >= -27.76 and loss < 14.21": 0,
        "lambda_min >= -27.74": 1,
        "loss < 14.2": 1,  # 14.203125
    }.items():
        outcome = gate_of(diagnosis, require=[requirement], fail_on="never").judge(diagnosis)
        assert outcome.exit_code == code, (requirement, outcome.hits, outcome.gaps)


def test_the_life_of_a_baseline(saddle: Path) -> None:
    file = saddle.parent / "base.json"
    first = inspect(saddle)
    assert judged(saddle, first).exit_code == 1
    update_baseline(file, Gate(baseline=load_baseline(file, missing_ok=True)).noted(first))
    assert list(load_baseline(file).checkpoints) == ["point.safetensors"]
    assert judged(saddle, inspect(saddle)).exit_code == 0
    assert judged(saddle, inspect(saddle, measure__seed=1)).exit_code == 0
    other_rho = judged(saddle, inspect(saddle, sam__rho=0.06))
    assert other_rho.exit_code == 1
    assert "sam.rho 0.05 → 0.06" in other_rho.hits[0].message


def test_a_point_of_sharper_curvature_is_worse(saddle: Path) -> None:
    file = saddle.parent / "base.json"
    gate = Gate(baseline=load_baseline(file, missing_ok=True))
    base = update_baseline(file, gate.noted(inspect(saddle)))
    sharper = inspect(at(saddle.parent, 0.02, 1.03))
    outcome = Gate(baseline=base).judge(sharper)
    assert sharper.verdict == "saddle-attraction"
    assert sharper.measurements is not None
    assert (sharper.measurements.lambda_min.value or 0.0) < -28
    assert outcome.exit_code == 1
    assert outcome.hits[0].message.startswith("worse than in the baseline: lambda_min −28")
