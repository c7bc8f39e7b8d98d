"""`samdiag demo`: the list, the table, JSON, files, exit codes and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from typer.testing import CliRunner, Result

from samdiag.cli import demo as command
from samdiag.cli.app import app
from samdiag.errors import UsageError
from samdiag.gallery import digits_experiment
from samdiag.gallery.experiment import Experiment, Outcome, Row, Tell
from samdiag.registry import DEMOS

from .pictures import size_of

GOOD = Row(quantity="a number", published="1", expected="1", measured="1.01", agrees=True, tolerance="± 2 %")
BAD = Row(quantity="another", expected="1", measured="[bold]2[/bold]", agrees=np.False_)  # type: ignore[arg-type]
OPEN = Row(quantity="a third, without anything to hold it to", measured="3")


def _run(folder: Path, seed: int, tell: Tell) -> Outcome:
    tell("half of it is done")
    path = folder / "stuck.safetensors"
    path.write_bytes(b"")
    rows = (GOOD, BAD, OPEN) if seed else (GOOD, OPEN)
    return Outcome(rows=rows, pictures=(folder / "a.png",), checkpoints=(path,), remarks=("One remark.",))


FAKE = Experiment(name="fake", title="A fake", source="nobody, Sec. 0", run=_run)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "DEMOS", {"fake": f"{__name__}:FAKE"})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {name: replace(recipe, steps=100) for name, recipe in digits_experiment.RUNS.items()}
    monkeypatch.setattr(digits_experiment, "RUNS", runs)


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["demo", *map(str, arguments)], prog_name="samdiag")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_without_a_name_they_are_listed() -> None:
    result = invoke()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[: len(DEMOS)]] == list(DEMOS)
    assert all(len(line.split()) > 3 for line in lines[: len(DEMOS)])


def test_the_list_as_json() -> None:
    assert [entry["demo"] for entry in json.loads(invoke("--format", "json").stdout)] == list(DEMOS)


@pytest.mark.parametrize("name", DEMOS)
def test_every_demo_is_called_what_it_is_listed_as(name: str) -> None:
    experiment = command._found(name)
    assert experiment.name == name
    assert experiment.title
    assert experiment.source


@pytest.mark.usefixtures("_fake")
def test_the_table_and_the_files() -> None:
    result = invoke("fake")
    assert result.exit_code == 0
    header, row = (line.split() for line in result.stdout.splitlines()[4:6])
    assert header == ["quantity", "published", "expected", "measured", "agrees"]
    assert row == ["a", "number", "1", "1", "±", "2", "%", "1.01", "✔", "yes"]
    assert "✔ 1 of 1 agree" in result.stdout
    assert "One remark." in result.stdout
    assert "samdiag inspect demo/fake/stuck.safetensors" in result.stdout
    assert "half of it is done" in result.stderr
    assert "\x1b" not in result.output
    assert Path("demo/fake/stuck.safetensors").is_file()


@pytest.mark.usefixtures("_fake")
def test_a_row_that_does_not_agree_is_exit_code_1_also_as_numpy_says_it() -> None:
    result = invoke("fake", "--seed", 1)
    assert result.exit_code == 1
    assert "✖ no" in result.stdout
    assert "✖ 1 of 2 agree" in result.stdout
    assert "[bold]2[/bold]" in result.stdout  # never read as markup


@pytest.mark.usefixtures("_fake")
def test_json(tmp_path: Path) -> None:
    result = invoke("fake", "--out", tmp_path / "x", "--seed", 1, "--format", "json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [row["agrees"] for row in report["rows"]] == [True, False, None]
    assert report["rows"][0] == {
        "quantity": "a number",
        "published": "1",
        "expected": "1",
        "measured": "1.01",
        "agrees": True,
        "tolerance": "± 2 %",
    }
    assert (report["demo"], report["seed"], report["agrees"]) == ("fake", 1, False)
    assert report["checkpoints"] == [str(tmp_path / "x" / "stuck.safetensors")]


@pytest.mark.usefixtures("_fake")
def test_colour_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in invoke("fake").stdout


@pytest.mark.parametrize("width", [60, 72, 100, 120])
def test_no_line_is_wider_than_asked_and_no_cell_is_lost(width: int) -> None:
    outcome = Outcome(rows=(GOOD, replace(BAD, measured="2 " * 40), OPEN), remarks=("word " * 60,))
    lines = command.render(FAKE, outcome, width=width, color=False).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.count("2") for line in lines if "±" not in line) >= 40
    assert sum("✔ yes" in line for line in lines) == 1
    assert sum("✖ no" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("beal",), "there is no demo named 'beal'; did you mean 'beale'?"),
        (("\x1b[31m",), "there is no demo named '\\x1b[31m'"),
        (("beale", "--format", "xml"), "--format 'xml' is unknown"),
    ],
)
def test_usage_errors_are_two_lines(arguments: tuple[str, ...], what: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first == f"samdiag: {what}"
    assert second.startswith("  choose ")


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_a_usage_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("fake", "--out", tmp_path / place)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    assert "give another folder with --out" in result.stderr


@pytest.mark.usefixtures("_fake")
@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    result = invoke("fake", "--out", folder)
    assert result.exit_code == 2
    assert "cannot write to" in result.stderr


@pytest.mark.usefixtures("_short")
def test_a_folder_in_the_way_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "healthy.safetensors").mkdir()
    with pytest.raises(UsageError, match="it is a folder"):
        command.perform("digits", tmp_path)


@pytest.mark.usefixtures("_short")
def test_digits_writes_two_stamped_checkpoints_its_picture_and_reports(tmp_path: Path) -> None:
    result = invoke("digits", "--out", tmp_path / "new" / "folder")
    assert "\nhealthy: step 100 of 100" in f"\n{result.stderr}"
    for name, rho in (("healthy", 0.05), ("stuck", 2.0)):
        path = tmp_path / "new" / "folder" / f"{name}.safetensors"
        with safe_open(path, framework="pt") as file:
            stamp = json.loads(file.metadata()["samdiag"])
            assert sum(file.get_tensor(name).numel() for name in file.keys()) == 2410  # noqa: SIM118 - no iterator
        assert stamp["model"]["gallery"] == "digits-mlp"
        assert stamp["data"]["gallery"] == "digits"
        assert (stamp["sam"]["rho"], stamp["sam"]["lr"]) == (rho, 0.2)
        assert f"verdict on {name}.safetensors" in result.stdout
    assert result.stdout.count("Hessian spectrum") == 2
    assert min(size_of(tmp_path / "new" / "folder" / "digits.png")) > 600
    assert result.exit_code == 1  # after 100 steps the healthy run has not learnt enough, and the row says so


@pytest.mark.usefixtures("_short")
def test_training_it_again_gives_the_same_files(tmp_path: Path) -> None:
    def once() -> bytes:
        run = digits_experiment.trained(
            "healthy", digits_experiment.fresh_model(), digits_experiment.RUNS["healthy"], lambda _line: None
        )
        return digits_experiment.save_run(run, tmp_path / "a.safetensors").read_bytes()

    assert once() == once()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DEMOS if name not in {"hallucination", "tanh-network"}])
def test_every_demo_agrees_from_the_command_line(name: str, tmp_path: Path) -> None:
    result = invoke(name, "--out", tmp_path, "--format", "json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert all(min(size_of(Path(path))) > 600 for path in report["pictures"])
    assert all(Path(path).is_file() for path in report["checkpoints"])


def test_the_command_is_imported_without_torch_or_matplotlib() -> None:
    code = "import sys, samdiag.cli.demo; sys.exit(bool({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
