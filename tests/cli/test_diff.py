"""`samdiag diff`: checkpoints are inspected, saved reports are read, and the exit code is as documented."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from samdiag.cli.diff import diff
from samdiag.reports import json_lines
from tests.cli.conftest import HONEST, Ran
from tests.reports.samples import est, failed, measurements
from tests.test_comparing import at

application = typer.Typer()
application.command()(diff)


def call(*arguments: str) -> Ran:
    done = CliRunner().invoke(application, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Ran(code=done.exit_code, out=done.stdout, err=done.stderr)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """a.jsonl, b.jsonl and broken.jsonl: one record each; many.jsonl: the first and another."""
    monkeypatch.chdir(tmp_path)
    a = at("a.pt")
    b = at("a.pt", measurements=measurements(lambda_max=est(99.0, 0.0, 0.1)))
    broken = failed(checkpoint=a.checkpoint, settings=a.settings)
    for name, records in {
        "a": [a],
        "b": [b],
        "broken": [broken],
        "many": [a, at("c.pt")],
        "far": [at("x.pt")] * 2,
    }.items():
        Path(f"{name}.jsonl").write_text("".join(json_lines.render(record) + "\n" for record in records))


@pytest.mark.usefixtures("saved")
def test_saved_reports_are_compared() -> None:
    done = call("a.jsonl", "b.jsonl")
    assert done.code == 0
    assert "Changed beyond both error bars" in done.out
    assert "lambda_max" in done.out.split("Changed beyond both error bars")[1].split("Not changed")[0]


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["a.jsonl", "b.jsonl"], 0),
        (["a.jsonl", "b.jsonl", "--exit-code"], 1),
        (["a.jsonl", "a.jsonl", "--exit-code"], 0),
        (["a.jsonl", "many.jsonl", "--exit-code"], 1),
        (["a.jsonl", "broken.jsonl"], 3),
        (["a.jsonl", "broken.jsonl", "--exit-code"], 1),
        (["a.jsonl", "a.jsonl", "-qq"], 0),
        (["far.jsonl", "many.jsonl"], 3),
        (["a.jsonl", "none.jsonl"], 2),
        (["a.jsonl", "a.jsonl", "--format", "html"], 2),
        (["a.jsonl", "b.jsonl", "--output", "b.jsonl"], 2),
    ],
)
def test_the_exit_code_is_as_documented(arguments: list[str], code: int) -> None:
    done = call(*arguments)
    assert done.code == code, done.err
    if "-qq" in arguments:
        assert (done.out, done.err) == ("", "")
    if code == 2:
        assert len(done.err.splitlines()) == 2


@pytest.mark.usefixtures("saved")
def test_json_and_markdown() -> None:
    found = call("a.jsonl", "b.jsonl", "--format", "json").report
    assert (found["differs"], found["by"]) == (True, "alone")
    changed = [shift["name"] for shift in found["pairs"][0]["shifts"] if shift["changed"]]
    assert changed == ["lambda_max"]
    assert "| `lambda_max` |" in call("a.jsonl", "b.jsonl", "--format", "markdown").out


def test_checkpoints_are_inspected_with_the_settings_given(work: Path) -> None:
    shutil.copy("runs/a.safetensors", "runs/b.safetensors")
    done = call("runs/a.safetensors", "runs/b.safetensors", "--format", "json", *HONEST)
    (pair,) = done.report["pairs"]
    assert done.code == 0
    assert not pair["differs"]
    assert "bit for bit" in pair["notes"][0]
    assert pair["settings"] == []


def test_a_checkpoint_and_a_saved_report_can_be_compared(work: Path) -> None:
    from samdiag.fleet.entries import Asked, Entry
    from samdiag.fleet.session import Session

    asked = Asked(overrides={"sam.rho": 0.3, "problem": "problems.py:problem"})
    with Session(asked) as session:
        before = session.inspect(Entry(path="runs/a.safetensors"))
    Path("before.json").write_text(json_lines.render(before, indent=2))
    done = call("before.json", "runs/a.safetensors", "--exit-code", "--format", "json", *HONEST)
    assert done.code == 1
    (pair,) = done.report["pairs"]
    assert [(s["name"], s["before"], s["after"]) for s in pair["settings"]] == [("sam.rho", 0.3, 0.1)]
    assert not pair["comparable"]


def test_what_cannot_be_inspected_is_a_failure_in_the_report(work: Path) -> None:
    Path("runs/broken.pt").write_bytes(b"no weights")
    done = call("runs/a.safetensors", "runs/broken.pt", *HONEST)
    assert done.code == 3
    assert "failed" in done.out
    assert json.loads(call("runs/a.safetensors", "runs/broken.pt", "--format", "json", *HONEST).out)["differs"]
