"""`inspect --emit FILE`: the prescription for a training script, and the same as code under the report."""

from __future__ import annotations

import json
import os
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from samdiag.remedies import Phase

from ..reports.test_recipes import SAM
from .conftest import HONEST, Run, save

A = "runs/a.safetensors"
CODE = "PHASES = ["
SADDLE = ("saddle.safetensors", "--problem", "problems.py:saddle", "--lr", "0.05")
READ: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}


@pytest.fixture
def held(work: Path) -> tuple[str, ...]:
    """x² − y² under USAM with rho 1, just beside the saddle: captured."""
    save({"w": [0.01, 0.001]}, "saddle.safetensors")
    return (*SADDLE, "--rho", "1", "--variant", "usam")


@pytest.fixture
def slow(work: Path) -> tuple[str, ...]:
    """The same under SAM, where the gradient lies across the escape."""
    save({"w": [0.03, 0.00002]}, "saddle.safetensors")
    return (*SADDLE, "--rho", "0.1")


@pytest.mark.parametrize("suffix", READ)
def test_the_file_holds_what_the_report_says(suffix: str, held: tuple[str, ...], inspect: Run) -> None:
    ran = inspect(*held, "--emit", f"next{suffix}", "--format", "json")
    assert ran.code == 1  # the finding is an error
    found, report = READ[suffix](Path(f"next{suffix}").read_text("utf-8")), ran.report
    p = report["prescription"]
    assert found["verdict"] == report["verdict"] == "saddle-attraction"
    assert found["checkpoint"]["fingerprint"] == report["checkpoint"]["fingerprint"]
    assert found["action"] == "change"
    assert found["change"]["rho"]["from"] == 1.0
    assert found["change"]["rho"]["to"] == p["rho"]["recommended"]
    assert found["schedule"]["risk"] == p["schedule"]["risk"]
    assert found["schedule"].get("predicted_steps") == p["schedule"]["steps"]
    assert [row["rho"] for row in found["schedule"]["phases"]] == [row["rho"] for row in p["schedule"]["phases"]]
    assert CODE not in ran.out
    assert ran.err == ""


def test_the_report_ends_with_the_code_and_the_code_leaves_the_saddle(
    slow: tuple[str, ...], inspect: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed, for each of the three ways: after the first phase y has left, which SAM as it was does not do."""
    ran = inspect(*slow, "--emit", "next.toml")
    code = ran.out[ran.out.index("# saddle-attraction") :]
    found = tomllib.loads(Path("next.toml").read_text("utf-8"))
    first = found["schedule"]["phases"][0]
    fake = types.ModuleType("sam")
    fake.SAM = SAM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sam", fake)
    head, *sections = code.split("\n# --- ")
    assert len(sections) == 3
    for section in sections:
        name, _, body = section.partition(" ---\n")
        if name == "pytorch_optimizer":
            pytest.importorskip("pytorch_optimizer")
        assert escaped(head + "\n" + body, first["steps"]) > 0.1
    asis = head.replace(f"({first['steps']}, 0.0, 0.0", f"({first['steps']}, 0.1, 0.1")
    assert asis != head
    assert escaped(asis + "\n" + sections[2].partition(" ---\n")[2], first["steps"]) < 1e-3


def escaped(code: str, steps: int) -> float:
    """|y| of x² − y² + y⁴ after so many steps of the code from the checkpoint."""

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.03, 0.00002], dtype=torch.float64))

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return self.w[0] ** 2 - self.w[1] ** 2 + self.w[1] ** 4

    model, batch = Point(), (torch.zeros(1), torch.zeros(1))
    exec(code, {"model": model, "loss_fn": lambda value, _: value, "batches": [batch] * steps})
    return abs(float(model.w[1].detach()))


def test_nothing_to_change_has_no_code(work: Path, inspect: Run) -> None:
    save({"w": [0.0, 0.0, 0.0]}, "bowl.safetensors")
    arguments = ("bowl.safetensors", "--rho", "0.1", "--problem", "problems.py:bowl", "--lr", "0.1")
    ran = inspect(*arguments, "--emit", "next.json")
    found = json.loads(Path("next.json").read_text())
    assert found["action"] == "nothing"
    assert "schedule" not in found
    assert CODE not in ran.out


@pytest.mark.parametrize("name", ["next.txt", "next", "next.ini"])
def test_an_unknown_suffix_lists_the_known_ones(name: str, work: Path, inspect: Run) -> None:
    ran = inspect(A, *HONEST, "--emit", name)
    assert ran.code == 2
    assert ".toml, .json, .yaml, .yml" in ran.err
    assert ran.out == ""
    assert not Path(name).exists()


def test_several_checkpoints_are_refused(work: Path, inspect: Run) -> None:
    ran = inspect(A, "gone.safetensors", *HONEST, "--emit", "next.toml")
    assert ran.code == 2
    assert "one checkpoint at a time" in ran.err
    assert ran.out == ""


def test_its_own_file_is_replaced_and_no_other(held: tuple[str, ...], inspect: Run) -> None:
    for rho in ("1", "2"):
        assert inspect(*held, "--emit", "next.toml", "--rho", rho).code == 1
        assert tomllib.loads(Path("next.toml").read_text("utf-8"))["current"]["rho"] == float(rho)
    for content in ("rho = 0.1\n", "", "no toml at all"):
        Path("mine.toml").write_text(content)
        ran = inspect(*held, "--emit", "mine.toml")
        assert ran.code == 2
        assert "was not written by --emit" in ran.err
        assert Path("mine.toml").read_text() == content
    before = Path("saddle.safetensors").read_bytes()
    os.link("saddle.safetensors", "alias.json")
    assert inspect(*held, "--emit", "alias.json").code == 2
    assert Path("saddle.safetensors").read_bytes() == before
    assert not [name for name in os.listdir() if name.startswith(".next")]  # nothing left lying beside it


def test_a_folder_that_is_not_there(work: Path, inspect: Run) -> None:
    ran = inspect(A, *HONEST, "--emit", "gone/next.toml")
    assert ran.code == 2
    assert "a folder that exists" in ran.err


def test_a_dangling_link_is_not_written_through(work: Path, inspect: Run) -> None:
    Path("next.toml").symlink_to("elsewhere.toml")
    assert inspect(A, *HONEST, "--emit", "next.toml").code == 2
    assert not Path("elsewhere.toml").exists()


def test_the_report_and_the_settings_are_two_files(held: tuple[str, ...], inspect: Run) -> None:
    ran = inspect(*held, "--format", "json", "--output", "both.json", "--emit", "./both.json")
    assert (ran.code, ran.out) == (2, "")
    assert "--output and --emit both name both.json" in ran.err
    assert not Path("both.json").exists()


def test_a_file_that_cannot_be_written_costs_no_report(
    held: tuple[str, ...], inspect: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    ran = inspect(*held, "--emit", "next.toml")
    assert ran.code == 1  # the failed gate outranks the file
    assert "CAUGHT IN A SADDLE" in ran.out
    assert "could not be written to next.toml: No space left on device" in ran.err
    assert not [name for name in os.listdir() if name.endswith((".tmp", ".toml")) or name.startswith(".samdiag")]


def test_a_name_that_no_file_can_have(work: Path, inspect: Run) -> None:
    ran = inspect(A, *HONEST, "--emit", "x" * 300 + ".toml")
    assert (ran.code, ran.out) == (2, "")
    assert "give --emit a file in a folder that exists" in ran.err


def test_a_long_name_is_written(held: tuple[str, ...], inspect: Run) -> None:
    name = "x" * 250 + ".toml"
    assert inspect(*held, "--emit", name, "-qq").code == 1
    assert tomllib.loads(Path(name).read_text())["action"] == "change"


def test_explain_measures_nothing_to_emit(work: Path, inspect: Run) -> None:
    ran = inspect(A, *HONEST, "--explain", "--emit", "next.toml")
    assert ran.code == 2
    assert "leave out one of the two" in ran.err


def test_a_failure_writes_no_file(work: Path, inspect: Run) -> None:
    assert inspect("gone.safetensors", *HONEST, "--emit", "next.toml").code == 2
    assert not Path("next.toml").exists()


def test_quiet_still_writes_the_file(held: tuple[str, ...], inspect: Run) -> None:
    ran = inspect(*held, "--emit", "next.yaml", "-qq")
    assert ran.out == ""
    assert yaml.safe_load(Path("next.yaml").read_text("utf-8"))["action"] == "change"


def test_the_code_goes_where_the_report_goes(held: tuple[str, ...], inspect: Run) -> None:
    ran = inspect(*held, "--emit", "next.toml", "--output", "report.txt")
    assert CODE not in ran.out
    assert CODE in Path("report.txt").read_text("utf-8")


def test_the_variable_is_the_flags_twin(held: tuple[str, ...], inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMDIAG_EMIT", "next.toml")
    inspect(*held)
    assert Path("next.toml").exists()


def test_the_page_shows_a_reader_that_follows_the_schedule(work: Path, inspect: Run) -> None:
    """The lines of docs/prescription.md, run on an emitted file: rho at every step is that of the report's phases."""
    page = Path(__file__).parents[2] / "docs" / "prescription.md"
    snippet = page.read_text("utf-8").split("```python\n")[1].split("```")[0]
    save({"w": [0.03, 0.00002]}, "saddle.safetensors")
    inspect(*SADDLE, "--rho", "0.1", "--emit", "next.toml")
    space: dict[str, Any] = {}
    exec(snippet, space)
    for step in (0, 5, 100):
        assert space["rho_at"](step) == 0.0 if step < space["phases"][0]["steps"] else space["phases"][1]["rho"]
    decay = {"first_step": 10, "steps": 40, "rho": 0.2, "rho_end": 0.02}
    space["phases"][:] = [{"first_step": 0, "steps": 10, "rho": 0.2, "rho_end": 0.2}, decay]
    phase = Phase(steps=40, rho=0.2, rho_end=0.02)
    for step in range(60):
        assert space["rho_at"](step) == pytest.approx(phase.rho_at(max(step - 10, 0)))
