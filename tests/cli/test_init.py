"""`samdiag init`: what is written, what is said, what is never written over, and that inspect works right after."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from samdiag.gallery.digits import mlp
from tests.cli.conftest import Run, process

A = "runs/a.safetensors"
OWN = "samdiag.toml"
TRAIN = """
from pathlib import Path
Path("was_run").touch()
from torch import nn
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
"""


@pytest.fixture
def project(work: Path) -> Path:
    """A folder with a network of its own and data that fit runs/a.safetensors."""
    (work / "problems.py").unlink()
    (work / "train.py").write_text(TRAIN)
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((40, 2)).astype(np.float32)
    np.savez(work / "train.npz", inputs=inputs, targets=(inputs[:, 0] > 0).astype(np.int64))
    return work


def test_init_and_then_inspect(project: Path, run: Run) -> None:
    ran = run("init", A)
    assert (ran.code, ran.out) == (0, "")
    assert tomllib.loads((project / OWN).read_text()) == {
        "model": "train.py:model",
        "data": {"tensors": "train.npz"},
        "loss": "cross_entropy",
        "sam": {"rho": 0.05},
    }
    assert not (project / "was_run").exists()
    assert ran.err.splitlines()[-1] == f"samdiag: wrote {OWN}; next: samdiag inspect {A}"
    inspected = run("inspect", A, "--format", "json", "--fail-on", "never", "--samples", "40")
    assert inspected.code in {0, 3}
    assert inspected.report["settings"]["model"]["trust"] == "project"
    assert inspected.report["settings"]["sam.rho"]["source"] == OWN


def test_the_digits_need_nothing_in_the_folder(work: Path, run: Run) -> None:
    (work / "problems.py").unlink()
    torch.save(mlp(hidden=4).state_dict(), work / "runs" / "d.pt")
    assert run("init", "runs/d.pt").code == 0
    inspected = run("inspect", "runs/d.pt", "--explain")
    assert inspected.code == 0
    assert "digits-mlp" in inspected.out


def test_what_is_missing_exits_3_and_is_said(work: Path, run: Run) -> None:
    (work / "problems.py").unlink()
    ran = run("init", A)
    assert ran.code == 3
    missing = [line.split()[1] for line in ran.err.splitlines() if line.startswith("missing")]
    assert missing == ["model:", "data:", "loss:"]
    assert "fill in model and data and loss" in ran.err.splitlines()[-1]
    assert tomllib.loads((work / OWN).read_text()) == {"sam": {"rho": 0.05}}


def test_nothing_is_written_over(project: Path, run: Run) -> None:
    (project / OWN).write_text("# mine\n")
    ran = run("init", A)
    assert ran.code == 2
    assert "--force" in ran.err
    assert (project / OWN).read_text() == "# mine\n"
    assert run("init", A, "--force").code == 0
    assert "train.py:model" in (project / OWN).read_text()


@pytest.mark.parametrize("more", [("--force",), ("--output", "other.toml"), ("--output", "-")])
def test_a_broken_file_is_no_hindrance(project: Path, run: Run, more: tuple[str, ...]) -> None:
    (project / OWN).write_text("model = [\n")
    ran = run("init", A, *more)
    assert ran.code == 0
    text = ran.out or (project / more[-1].replace("--force", OWN)).read_text()
    assert tomllib.loads(text)["model"] == "train.py:model"


def test_force_keeps_the_settings_of_sam(project: Path, run: Run) -> None:
    (project / OWN).write_text('model = "a.py:b"\n[sam]\nrho = 0.3\nlr = 0.7\n')
    ran = run("init", A, "--force")
    assert ran.code == 0
    assert "kept from the samdiag.toml that was here: rho = 0.3" in ran.err
    document = tomllib.loads((project / OWN).read_text())
    assert (document["model"], document["sam"]) == ("train.py:model", {"rho": 0.3, "lr": 0.7})
    assert run("init", A, "--force", "--rho", "0.2").code == 0
    assert tomllib.loads((project / OWN).read_text())["sam"] == {"rho": 0.2, "lr": 0.7}
    (project / OWN).write_text("[sam]\nrho = -1\n")
    assert "nothing is kept" in run("init", A, "--force").err


def test_images_whose_normalisation_is_not_known(project: Path, run: Run) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)).state_dict(), project / "runs" / "c.pt")
    for name in ("a", "b"):
        (project / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(project / "images" / name / "0.png")
    ran = run("init", "runs/c.pt", "--model", "train.py:model")
    assert ran.code == 0
    assert [line for line in ran.err.splitlines() if line.startswith("unknown  how the pixels")]
    text = (project / OWN).read_text()
    assert '# data = { folder = "images", args = { normalize = "imagenet" } }' in text
    assert tomllib.loads(text)["data"] == {"folder": "images"}


def test_a_model_that_cannot_be_built_here_is_not_complete(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samdiag.guessing import catalogs

    match = catalogs.Match(library="timm", name="resnet18", reason="model.timm needs timm, which is not installed")
    monkeypatch.setattr(catalogs, "find", lambda *_: [match])
    (project / "train.py").unlink()
    ran = run("init", A, "--loss", "mse")
    assert ran.code == 3
    assert ran.err.splitlines()[-1].endswith("cannot be built here: model.timm needs timm, which is not installed")
    assert tomllib.loads((project / OWN).read_text())["model"] == {"timm": "resnet18"}


def test_in_another_folder(project: Path, run: Run) -> None:
    (project / "sub").mkdir()
    ran = run("init", A, "--output", "sub/s.toml")
    assert ran.code == 0
    document = tomllib.loads((project / "sub" / "s.toml").read_text())
    assert (document["model"], document["data"]) == ("../train.py:model", {"tensors": "../train.npz"})
    assert ran.err.splitlines()[-1].endswith(f"next: samdiag inspect {A} --config sub/s.toml")
    inspected = run("inspect", A, "--config", "sub/s.toml", "--fail-on", "never", "--format", "json", "--samples", "40")
    assert inspected.code in {0, 3}
    assert inspected.report["settings"]["data"]["trust"] == "cli"


def test_a_link_is_not_followed(project: Path, run: Run, tmp_path: Path) -> None:
    (project / OWN).symlink_to(tmp_path / "elsewhere")
    assert run("init", A).code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_on_stdout(project: Path, run: Run) -> None:
    ran = run("init", A, "--output", "-")
    assert ran.code == 0
    assert tomllib.loads(ran.out)["model"] == "train.py:model"
    assert not (project / OWN).exists()


@pytest.mark.parametrize("output", ["runs", "nowhere/x.toml"])
def test_where_it_cannot_be_written(project: Path, run: Run, output: str) -> None:
    ran = run("init", A, "--output", output)
    assert (ran.code, len(ran.err.splitlines())) == (2, 2)


def test_a_project_that_has_its_settings_already(project: Path, run: Run) -> None:
    (project / "pyproject.toml").write_text('[tool.samdiag]\nproblem = "a:b"\n')
    ran = run("init", A)
    assert ran.code == 2
    assert "pyproject.toml has the project's settings already" in ran.err
    assert not (project / OWN).exists()
    assert run("init", A, "--output", "-").code == 0


def test_what_is_said_is_taken_as_said(project: Path, run: Run) -> None:
    ran = run("init", A, "--model", "other.py:net", "--loss", "mse", "--rho", "0.2")
    assert ran.code == 0
    document = tomllib.loads((project / OWN).read_text())
    assert (document["model"], document["loss"], document["sam"]) == ("other.py:net", "mse", {"rho": 0.2})


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--rho", "-1"), "sam.rho = -1.0 (command line)"),
        (("--rho", "x"), "--rho 'x' is not a number"),
        (("--loss", "cross_entrpy"), "did you mean 'cross_entropy'?"),
        (("--problem", "a:b", "--model", "a:b"), "must have either problem or model, data and loss"),
        (("--search", "no_such_package"), "no such package is installed"),
        (("--search", "safetensor"), "did you mean 'safetensors'?"),
    ],
)
def test_what_is_not_allowed(project: Path, run: Run, arguments: tuple[str, ...], what: str) -> None:
    ran = run("init", A, *arguments)
    assert ran.code == 2
    assert what in ran.err
    assert not (project / OWN).exists()


def test_no_checkpoint(work: Path, run: Run) -> None:
    assert run("init", "gone.pt").code == 2
    assert run("init", "problems.py").code == 3


def test_a_package_is_searched_and_not_imported(project: Path, run: Run) -> None:
    (project / "train.py").unlink()
    (project / "lib" / "nets").mkdir(parents=True)
    (project / "lib" / "nets" / "__init__.py").write_text(TRAIN.replace("def model", "def build"))
    ran = run("init", A, "--search", "lib/nets")
    assert ran.code == 0
    document = tomllib.loads((project / OWN).read_text())
    assert document["model"] == "nets:build"
    assert document["pythonpath"] == ["lib"]
    assert not (project / "was_run").exists()


def test_hostile_names_reach_no_terminal(project: Path, run: Run) -> None:
    (project / "train.py").unlink()
    save_file({"\x1b[2J\n[gate].weight": torch.zeros(3, 2)}, project / "runs" / "x.safetensors")
    ran = run("init", "runs/x.safetensors", "--output", "-")
    assert ran.code == 3
    assert set(tomllib.loads(ran.out)) == {"data", "loss", "sam"} or set(tomllib.loads(ran.out)) == {"sam"}
    assert "\x1b" not in ran.out + ran.err


def test_in_a_process_of_its_own(project: Path) -> None:
    ran = process("init", A, "-q", cwd=project)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (project / OWN).stat().st_mode & 0o022 == 0
