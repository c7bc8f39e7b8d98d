"""A mistyped name is answered with the one that was probably meant, whatever kind of name it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from samdiag.suggesting import did_you_mean, nearest
from tests.cli.conftest import Run

A = "runs/a.safetensors"
PROBLEM = ("--problem", "problems.py:problem")
PARTS = ("--data", "digits", "--loss", "mse", "--rho", "0.1")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("inspct", A), "inspect"),
        (("inspect", A, "--momentm", "0.9"), "--momentum"),
        (("inspect", A, *PROBLEM, "--variant", "asm"), "did you mean 'asam'?"),
        (("inspect", A, *PROBLEM, "--dtype", "flaot32"), "did you mean 'float32'?"),
        (("inspect", A, *PROBLEM, "--format", "jsn"), "did you mean 'json'?"),
        (("sweep", A, *PROBLEM, "--format", "JSON"), "did you mean 'json'?"),
        (("spectrum", A, *PROBLEM, "--format", "txt"), "did you mean 'text'?"),
        (("inspect", A, *PROBLEM, "--fail-on", "bounse"), "did you mean `bounce`?"),
        (("inspect", A, *PROBLEM, "--config", "gate.fail_on=['unstabel']"), "did you mean 'unstable'?"),
        (("inspect", A, *PROBLEM, "--config", "sam.moment=0.9"), "did you mean 'momentum'?"),
        (("inspect", A, *PROBLEM, "--config", "meassure.tol=0.1"), "did you mean 'measure'?"),
        (("inspect", A, "--model", "digits-mpl", *PARTS), "did you mean 'digits-mlp'?"),
        (("inspect", A, "--model", "digits-mlp", "--data", "digit", *PARTS[2:]), "did you mean 'digits'?"),
        (("inspect", A, "--loss", "cross-entropy", *PARTS[:2]), "did you mean 'cross_entropy'?"),
        (("inspect", A, "--problem", "problems.py:prolbem", "--rho", "0.1"), "did you mean 'problem'?"),
        (("schema", "repotr"), "did you mean 'report'?"),
        (("demo", "beal"), "did you mean 'beale'?"),
    ],
)
def test_the_name_that_was_meant(work: Path, run: Run, arguments: tuple[str, ...], meant: str) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert meant in ran.err


def test_upper_and_lower_case_count_as_the_same() -> None:
    assert nearest("cifar10", ["MNIST", "CIFAR10"]) == "CIFAR10"
    assert did_you_mean("bertformaskedlm", ["BertForMaskedLM"]) == "; did you mean 'BertForMaskedLM'?"


def test_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["abc"]) == ""
    assert nearest("zzz", []) is None
