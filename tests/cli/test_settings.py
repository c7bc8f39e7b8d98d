"""Where a setting comes from: flags, variables, files, the checkpoint; who wins and who is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from samdiag import stamp
from samdiag.formats.checkpoint import EMA_BESIDE, EMA_USED
from tests.cli.conftest import HONEST, Run, network

A = "runs/a.safetensors"
PROBLEM = ("--problem", "problems.py:problem")
PARTS = ("--model", "problems.py:model", "--data", "problems.py:data", "--loss", "cross_entropy")


def rho_of(report: dict[str, Any]) -> tuple[float, str, str]:
    said = report["settings"]["sam.rho"]
    return said["value"], said["source"], said["trust"]


# ---------------------------------------------------------------- the problem


@pytest.mark.parametrize(
    "arguments",
    [
        PROBLEM,
        ("--problem", "problems:problem"),
        ("--problem", "./problems.py:problem"),
        PARTS,
        ("--model", "problems:model", "--data", "problems:batches", "--loss", "problems:loss"),
        ("--config", 'problem = "problems.py:problem"'),
        ("--config", 'model = "problems.py:model"\ndata = "problems.py:data"\nloss = "cross_entropy"'),
        ("--config", 'model.python = "problems.py:model"', "--data", "problems.py:data", "--loss", "problems.py:loss"),
        ("--config", 'model = { python = "problems.py:model", args = { hidden = 3 } }', *PARTS[2:]),
    ],
)
def test_ways_to_name_the_problem(arguments: tuple[str, ...], work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", *arguments, "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.report["measurements"]["num_samples"] == 32


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("samdiag.toml", 'problem = "problems.py:problem"\n[sam]\nrho = 0.3\n'),
        ("samdiag.toml", 'problem = "problems:problem"\npythonpath = ["."]\n[sam]\nrho = 0.3\n'),
        ("pyproject.toml", '[tool.samdiag]\nproblem = "problems.py:problem"\n[tool.samdiag.sam]\nrho = 0.3\n'),
    ],
)
@pytest.mark.parametrize("below", [".", "runs"])
def test_a_project_file_is_enough(name: str, text: str, below: str, work: Path, inspect: Run, monkeypatch: Any) -> None:
    Path(name).write_text(text)
    monkeypatch.chdir(below)
    path = "a.safetensors" if below == "runs" else A
    ran = inspect(path, "--format", "json")
    assert ran.code == 0, ran.err
    assert rho_of(ran.report) == (0.3, name if below == "." else f"../{name}", "project")


def test_module_name_beside_the_checkpoint_is_refused(work: Path, inspect: Run, monkeypatch: Any) -> None:
    """Nothing that lies beside a checkpoint is imported by name; a file is, because the user names it."""
    (work / "runs" / "training.py").write_text((work / "problems.py").read_text())
    monkeypatch.chdir("runs")
    refused = inspect("a.safetensors", "--rho", "0.1", "--problem", "training:problem")
    assert refused.code == 2
    assert "the folder of a checkpoint is never searched for modules" in refused.err
    assert "--problem training.py:name" in refused.err
    assert inspect("a.safetensors", "--rho", "0.1", "--problem", "training.py:problem").code == 0


# ---------------------------------------------------------------- precedence


def test_every_origin_and_what_it_overrules(work: Path, inspect: Run, valid: Callable[[Any], None]) -> None:
    stamp(A, model="digits-mlp", data="digits", rho=0.5, lr=0.05)
    Path(f"{A}.samdiag.toml").write_text("[sam]\nrho = 0.4\nmomentum = 0.4\n")
    Path("samdiag.toml").write_text('problem = "problems.py:problem"\n[sam]\nrho = 0.3\nweight_decay = 0.001\n')
    ran = inspect(A, "--config", "sam.rho = 0.2", "--rho", "0.1", "--format", "json")
    assert ran.code == 0, ran.err
    valid(ran.report)
    settings = ran.report["settings"]
    assert rho_of(ran.report) == (0.1, "command line", "cli")
    assert settings["sam.rho"]["shadowed"] == [
        {"value": 0.2, "source": "--config"},
        {"value": 0.3, "source": "samdiag.toml"},
        {"value": 0.4, "source": "sidecar a.safetensors.samdiag.toml"},
        {"value": 0.5, "source": "stamp in the checkpoint"},
    ]
    assert (settings["sam.lr"]["value"], settings["sam.lr"]["trust"]) == (0.05, "artifact")
    assert (settings["sam.momentum"]["value"], settings["sam.momentum"]["trust"]) == (0.4, "artifact")
    assert settings["sam.momentum"]["shadowed"] == [{"value": 0.0, "source": "default"}]
    assert (settings["sam.weight_decay"]["value"], settings["sam.weight_decay"]["trust"]) == (0.001, "project")
    assert settings["problem"]["value"] == "problems.py:problem"


@pytest.mark.parametrize(
    ("variables", "arguments", "expected"),
    [
        ({"SAMDIAG_RHO": "0.25"}, (), 0.25),
        ({"SAMDIAG_RHO": "0.25"}, ("--rho", "0.1"), 0.1),
        ({"SAMDIAG_CONFIG": "sam.rho = 0.15"}, (), 0.15),
        ({"SAMDIAG_CONFIG": "sam.rho = 0.15", "SAMDIAG_RHO": "0.25"}, (), 0.25),
    ],
)
def test_variables(
    variables: dict[str, str], arguments: tuple[str, ...], expected: float, work: Path, inspect: Run, monkeypatch: Any
) -> None:
    for name, value in {"SAMDIAG_PROBLEM": "problems.py:problem", "SAMDIAG_FORMAT": "json", **variables}.items():
        monkeypatch.setenv(name, value)
    ran = inspect(A, *arguments)
    assert ran.code == 0, ran.err
    assert rho_of(ran.report)[0] == expected


def test_a_bad_variable(work: Path, inspect: Run, monkeypatch: Any) -> None:
    monkeypatch.setenv("SAMDIAG_RHO", "much")
    ran = inspect(A, *PROBLEM)
    assert (ran.code, ran.out) == (2, "")
    assert "'much' is not a number" in ran.err


def test_a_variable_is_named_as_the_source(work: Path, inspect: Run, monkeypatch: Any) -> None:
    monkeypatch.setenv("SAMDIAG_RHO", "0.25")
    report = inspect(A, *PROBLEM, "--format", "json").report
    assert "SAMDIAG_RHO" in report["settings"]["sam.rho"]["source"]


def test_quiet_has_a_variable(work: Path, inspect: Run, monkeypatch: Any) -> None:
    monkeypatch.setenv("SAMDIAG_QUIET", "2")
    assert inspect(A, *HONEST).out == ""


# ---------------------------------------------------------------- stamps


def test_a_stamped_checkpoint_needs_nothing_else(work: Path, inspect: Run, valid: Callable[[Any], None]) -> None:
    from safetensors.torch import save_file

    from samdiag.gallery.digits import mlp

    save_file(mlp().state_dict(), "digits.safetensors")
    stamp("digits.safetensors", model="digits-mlp", data="digits", rho=0.05, lr=0.1)
    ran = inspect("digits.safetensors", "--samples", "64", "--num-eigenvalues", "1", "--format", "json")
    assert ran.code in {0, 1}, ran.err
    valid(ran.report)
    assert rho_of(ran.report) == (0.05, "stamp in the checkpoint", "artifact")
    assert ran.report["settings"]["model"]["trust"] == "artifact"


@pytest.mark.parametrize("where", ["stamp", "sidecar"])
def test_what_comes_with_a_checkpoint_may_not_name_code(where: str, work: Path, inspect: Run) -> None:
    from safetensors.torch import save_file

    (work / "evil.py").write_text("open('pwned', 'w').close()\n")
    metadata = {"samdiag": '{"problem": "evil:problem", "pythonpath": ["."]}'} if where == "stamp" else None
    save_file(network().state_dict(), A, metadata=metadata)
    if where == "sidecar":
        Path(f"{A}.samdiag.toml").write_text('problem = "evil:problem"\npythonpath = ["."]\n')
    ran = inspect(A, "--rho", "0.1")
    assert (ran.code, ran.out) == (2, "")
    assert "a checkpoint may not choose what is imported" in ran.err
    assert 'problem = "evil:problem"' in ran.err  # the line to put into one's own file
    assert not Path("pwned").exists()
    assert inspect(A, *HONEST).code == 0  # the user's own word suffices
    assert not Path("pwned").exists()


# ---------------------------------------------------------------- torch files


def sgd_with_rho(**more: Any) -> dict[str, Any]:
    """The state of a SAM optimizer: SGD whose groups hold rho."""
    optimizer = torch.optim.SGD(network().parameters(), lr=0.2, momentum=0.8, weight_decay=0.01)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group.update({"rho": 0.07, "adaptive": False, **more})
    return state


@pytest.mark.parametrize("inner", ["optimizer", "optimizer_state_dict"])
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_optimizer_state_supplies_the_settings(
    key: str, inner: str, work: Path, inspect: Run, valid: Callable[[Any], None]
) -> None:
    torch.save({key: network().state_dict(), inner: sgd_with_rho(), "epoch": 3}, "run.pt")
    ran = inspect("run.pt", *PROBLEM, "--format", "json")
    assert ran.code == 0, ran.err
    valid(ran.report)
    settings = ran.report["settings"]
    for name, value in (("rho", 0.07), ("lr", 0.2), ("momentum", 0.8), ("weight_decay", 0.01)):
        said = settings[f"sam.{name}"]
        assert said["value"] == pytest.approx(value)
        assert (said["source"], said["trust"]) == ("optimizer state", "artifact")
    assert ran.report["checkpoint"]["format"] == "torch-zip"


def test_the_user_overrules_optimizer_state(work: Path, inspect: Run) -> None:
    torch.save({"model": network().state_dict(), "optimizer": sgd_with_rho()}, "run.pt")
    said = inspect("run.pt", *HONEST, "--format", "json").report["settings"]["sam.rho"]
    assert said["value"] == 0.1
    assert said["shadowed"] == [{"value": 0.07, "source": "optimizer state"}]


def test_adaptive_is_asam(work: Path, inspect: Run) -> None:
    torch.save({"model": network().state_dict(), "optimizer": sgd_with_rho(adaptive=True)}, "run.pt")
    report = inspect("run.pt", *PROBLEM, "--format", "json").report
    assert report["settings"]["sam.variant"]["value"] == "asam"
    assert report["measurements"]["variant"] == "asam"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": {"module": state}},
        lambda state: {"net": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    ],
    ids=["plain", "nested", "twice nested", "module.", "_orig_mod.module.", "lightning"],
)
def test_nesting_and_prefixes(wrap: Callable[[Any], Any], work: Path, inspect: Run) -> None:
    expected = inspect(A, *HONEST, "--format", "json").report["measurements"]
    torch.save(wrap(network().state_dict()), "wrapped.pt")
    ran = inspect("wrapped.pt", *HONEST, "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.report["measurements"] == expected


def test_averaged_weights_are_said_to_be_measured(work: Path, inspect: Run) -> None:
    raw, averaged = network().state_dict(), {k: 0.5 * v for k, v in network().state_dict().items()}
    torch.save({"model": raw, "model_ema": averaged}, "both.pt")
    ran, ema = inspect("both.pt", *HONEST), inspect("both.pt", *HONEST, "--weights", "ema")
    assert EMA_BESIDE in " ".join(ran.out.split())
    assert "weights ema (command line)" in " ".join(ema.out.split())
    assert EMA_USED in " ".join(ema.out.split())
    assert EMA_BESIDE not in " ".join(ema.out.split())


# ---------------------------------------------------------------- --explain


def test_explain_shows_every_column_and_runs_nothing(work: Path, inspect: Run) -> None:
    Path("own.py").write_text("open('imported', 'w').close()\n")
    Path("samdiag.toml").write_text('problem = "own.py:problem"\n[sam]\nrho = 0.3\n')
    ran = inspect(A, "--rho", "0.1", "--explain")
    assert (ran.code, ran.err) == (0, "")
    rows = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert rows[0] == "setting value from trust overruled"
    assert "problem own.py:problem samdiag.toml project –" in rows
    assert "sam.rho 0.1 command line cli 0.3 (samdiag.toml)" in rows
    assert "sam.variant sam default default –" in rows
    assert not Path("imported").exists()


def test_explain_of_several(work: Path, inspect: Run) -> None:
    shutil.copy(work / A, work / "b.safetensors")
    ran = inspect(A, "b.safetensors", *HONEST, "--explain")
    assert ran.code == 0
    assert ran.out.count("sam.rho") == 2


def test_explain_goes_on_after_a_bad_file(work: Path, inspect: Run) -> None:
    ran = inspect("gone.safetensors", A, *HONEST, "--explain")
    assert ran.code == 3
    assert "sam.rho" in ran.out


@pytest.mark.parametrize(("name", "code"), [("gone.safetensors", 2), ("problems.py", 3)])
def test_explain_of_no_checkpoint(name: str, code: int, work: Path, inspect: Run) -> None:
    ran = inspect(name, *HONEST, "--explain")
    assert (ran.code, ran.out) == (code, "")
    assert len(ran.err.splitlines()) == 2
