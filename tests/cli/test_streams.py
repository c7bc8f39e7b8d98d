"""The report on stdout, everything else on stderr; how much of either; colour; files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import HONEST, Run, save

A = "runs/a.safetensors"
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def words(report: str) -> list[str]:
    """The report without colour, without the time it took, and wherever its lines break."""
    return re.sub(r"[\d.]+ m?s ·", "", " ".join(COLOR.sub("", report).split())).split()


def test_report_on_stdout_and_nothing_else(work: Path, inspect: Run) -> None:
    ran = inspect(A, *HONEST)
    assert "STILL DESCENDING" in ran.out.splitlines()[0]
    assert ran.err == "a line of the training script's own\n"


def test_without_a_terminal_no_colour_and_no_progress(work: Path, inspect: Run) -> None:
    ran = inspect(A, *HONEST)
    assert "\x1b" not in ran.out + ran.err
    assert "\r" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("variables", "colour"),
    [
        ({"FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"NO_COLOR": "", "FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": ""}, False),
    ],
)
def test_colour(variables: dict[str, str], colour: bool, work: Path, inspect: Run, monkeypatch: Any) -> None:
    plain = inspect(A, *HONEST).out
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = inspect(A, *HONEST)
    assert bool(COLOR.search(ran.out)) == colour
    assert words(ran.out) == words(plain)


def test_colour_never_reaches_json_or_a_file(work: Path, inspect: Run, monkeypatch: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in inspect(A, *HONEST, "--format", "json").out
    inspect(A, *HONEST, "--output", "report.txt")
    assert "\x1b" not in Path("report.txt").read_text()


def test_explain_obeys_the_same_variables(work: Path, inspect: Run, monkeypatch: Any) -> None:
    assert "\x1b" not in inspect(A, *HONEST, "--explain").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert COLOR.search(inspect(A, *HONEST, "--explain").out)


@pytest.mark.parametrize("name", ["-q", "-qq"])
def test_quiet(name: str, work: Path, inspect: Run) -> None:
    save({"w": [0.0, 0.0]}, "stuck.safetensors")
    arguments = ("--rho", "0.6", "--variant", "usam", "--lr", "0.01", "--problem", "problems.py:saddle", name)
    ran = inspect("stuck.safetensors", *arguments)
    assert ran.code == 1
    assert ran.err == ""
    assert ("saddle-attraction" in ran.out) == (name == "-q")
    failed = inspect("gone.safetensors", *arguments)
    assert (failed.code, failed.out) == (2, "")
    assert bool(failed.err) == (name == "-q")  # why there is no report is never left out, unless nothing is wanted


def test_quiet_twice_still_writes_the_file(work: Path, inspect: Run) -> None:
    ran = inspect(A, *HONEST, "-qq", "--format", "json", "--output", "report.json")
    assert (ran.code, ran.out) == (0, "")
    assert json.loads(Path("report.json").read_text())["verdict"] == "descending"


# ---------------------------------------------------------------- --output


def test_output(work: Path, inspect: Run) -> None:
    Path("report.txt").write_text("an older and longer report\n" * 100)
    ran = inspect(A, *HONEST, "--output", "report.txt")
    assert (ran.code, ran.out) == (0, "")
    text = Path("report.txt").read_text(encoding="utf-8")
    assert "STILL DESCENDING" in text.splitlines()[0]
    assert "older" not in text


def test_output_of_several_is_json_lines(work: Path, inspect: Run, valid: Callable[[Any], None]) -> None:
    shutil.copy(A, "runs/z.safetensors")
    files = (A, "runs/gone.safetensors", "runs/z.safetensors")
    ran = inspect(*files, *HONEST, "--format", "json", "--output", "report.jsonl")
    assert (ran.code, ran.out) == (3, "")
    reports = [json.loads(line) for line in Path("report.jsonl").read_text().splitlines()]
    assert [bool(report["failure"]) for report in reports] == [False, True, False]
    for report in reports:
        valid(report)


def test_a_full_disk_is_said(work: Path, inspect: Run) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    ran = inspect(A, *HONEST, "--output", "/dev/full")
    assert ran.code in {2, 3}
    assert "No space left on device" in ran.err


def test_output_never_destroys_a_checkpoint(work: Path, inspect: Run) -> None:
    before = Path(A).read_bytes()
    ran = inspect(A, *HONEST, "--output", A)
    assert Path(A).read_bytes() == before
    assert ran.code == 2


def test_a_stdout_that_knows_ascii_only(work: Path, inspect: Run) -> None:
    """PYTHONIOENCODING=ascii, or an old Windows console."""
    ran = inspect(A, *HONEST, charset="ascii")
    assert ran.code == 0
    assert "STILL DESCENDING" in ran.out


def test_json_on_an_ascii_stdout(work: Path, inspect: Run) -> None:
    assert inspect(A, *HONEST, "--format", "json", charset="ascii").report["verdict"] == "descending"


# ---------------------------------------------------------------- user code that misbehaves


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_the_loss_prints_is_not_in_the_report(format: str, work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--problem", "problems.py:loss_prints", "--format", format)
    assert "step" not in ran.out.splitlines()
    assert "step" in ran.err.splitlines()


def test_a_loss_that_exits_is_no_pass(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--problem", "problems.py:loss_exits")
    assert ran.code == 2
    assert "the loss raised SystemExit" in ran.err


def test_data_that_raise_get_advice_about_data(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--problem", "problems.py:loader_raises")
    assert "the data raised OSError: stale file handle" in ran.err
    assert "loss(model, batch)" not in ran.err


def test_help_says_the_defaults(run: Run) -> None:
    """Square brackets would be read as markup and vanish."""
    told = " ".join(run("inspect", "--help").out.replace("│", " ").split())
    for default in ("(default: sam)", "(default: 2048)", "(default: heavy ball)"):
        assert default in told
