"""--format json: one object or JSON Lines, always valid, whatever the numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import HONEST, Run, save

A = "runs/a.safetensors"
Valid = Callable[[Any], None]


def test_one_checkpoint_is_one_object(work: Path, inspect: Run, valid: Valid) -> None:
    ran = inspect(A, *HONEST, "--lr", "0.1", "--format", "json")
    assert ran.code == 0
    valid(ran.report)
    assert ran.out.startswith('{\n  "format_version": 1,')  # indented for people
    assert ran.report["failure"] is None
    assert ran.report["checkpoint"]["num_params"] == 17
    assert ran.report["checkpoint"]["fingerprint"].startswith("sha256:")


def test_several_are_json_lines(work: Path, inspect: Run, valid: Valid) -> None:
    shutil.copy(A, "runs/b.safetensors")
    ran = inspect(A, "runs/b.safetensors", "runs/gone.pt", *HONEST, "--format", "json")
    assert len(ran.out.splitlines()) == 3
    for report in ran.reports:
        valid(report)
    first, second, third = ran.reports
    assert first["measurements"] == second["measurements"]  # the same weights twice: nothing leaks from run to run
    assert third["failure"]["exit_code"] == 2


def test_infinity_is_a_string(work: Path, inspect: Run, valid: Valid) -> None:
    """The gradient is exactly zero: SAM's effective radius is infinite."""
    save({"w": [0.0, 0.0, 0.0]}, "zero.safetensors")
    ran = inspect("zero.safetensors", "--rho", "0.1", "--problem", "problems.py:bowl", "--format", "json")
    valid(ran.report)
    assert ran.report["measurements"]["grad_norm"]["value"] == 0.0
    assert ran.report["measurements"]["effective_radius"] == "Infinity"
    text = inspect("zero.safetensors", "--rho", "0.1", "--problem", "problems.py:bowl")
    assert text.code == ran.code
    assert "nan" not in text.out.lower().replace("resonan", "")


@pytest.mark.parametrize("variant", ["sam", "usam", "asam"])
@pytest.mark.parametrize("function", ["bowl", "saddle", "one_parameter", "no_curvature"])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e12])
def test_extremes_are_valid(scale: float, function: str, variant: str, work: Path, inspect: Run, valid: Valid) -> None:
    size = {"bowl": 3, "saddle": 2, "one_parameter": 1, "no_curvature": 3}[function]
    save({"w": [scale] * size}, "w.safetensors")
    arguments = ("--rho", "0.1", "--variant", variant, "--problem", f"problems.py:{function}")
    ran = inspect("w.safetensors", *arguments, "--lr", "0.1", "--format", "json")
    valid(ran.report)
    assert ran.report["failure"] is None, ran.report["failure"]
    assert inspect("w.safetensors", *arguments).out


@pytest.mark.parametrize("more", [(), ("--dtype", "float64"), ("--dtype", "float32"), ("--num-eigenvalues", "50")])
@pytest.mark.parametrize("function", ["problem", "single_batch", "double", "unused", "linear_regression"])
def test_small_networks(function: str, more: tuple[str, ...], work: Path, inspect: Run, valid: Valid) -> None:
    from safetensors.torch import save_file

    from tests.cli import problems

    save_file(getattr(problems, function)().model.state_dict(), "net.safetensors")
    ran = inspect("net.safetensors", "--rho", "0.1", "--problem", f"problems.py:{function}", *more, "--format", "json")
    assert ran.code == 0, ran.err
    valid(ran.report)
    assert ran.report["measurements"]["self_check"]["passed"]
    if more == ("--num-eigenvalues", "50"):
        assert ran.report["measurements"]["spectrum_complete"]


def test_dtypes_agree(work: Path, inspect: Run) -> None:
    """The same eigenvalues in both precisions."""
    first, second = (
        inspect(A, *HONEST, "--dtype", name, "--format", "json").report["measurements"]
        for name in ("float32", "float64")
    )
    for name in ("lambda_max", "lambda_min", "grad_norm"):
        assert first[name]["value"] == pytest.approx(second[name]["value"], rel=1e-4)


def test_a_seed_repeats_the_run(work: Path, inspect: Run) -> None:
    reports = [inspect(A, *HONEST, "--seed", "3", "--format", "json").report for _ in range(2)]
    assert reports[0]["measurements"] == reports[1]["measurements"]


def test_schema_command(run: Run) -> None:
    ran = run("schema")
    assert ran.code == 0
    assert ran.err == ""
    assert ran.report["$schema"].startswith("https://json-schema.org/")
