"""`samdiag trend`: saved reports in, a table out, and every mistake in two lines."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from samdiag.cli.trend import trend
from samdiag.reports import json_lines
from tests.cli.conftest import Ran
from tests.reports.samples import est, measurements
from tests.test_comparing import at

application = typer.Typer()
application.command()(trend)


def call(*arguments: str) -> Ran:
    done = CliRunner().invoke(application, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Ran(code=done.exit_code, out=done.stdout, err=done.stderr)


@pytest.fixture(autouse=True)
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """out.jsonl with two runs of three checkpoints."""
    monkeypatch.chdir(tmp_path)
    records = [
        at(f"{run}/step-{step}.pt", step=step, measurements=measurements(lambda_max=est(value, 0.0, 0.1)))
        for run in ("slow", "fast")
        for step, value in ((30, 9.0), (20, 5.0), (10, 1.0))
    ]
    Path("out.jsonl").write_text("".join(json_lines.render(record) + "\n" for record in records))
    return tmp_path / "out.jsonl"


def test_the_text_shows_each_run_in_order() -> None:
    done = call("out.jsonl", "--quantity", "lambda_max,loss")
    assert done.code == 0
    assert done.out.index("fast") < done.out.index("slow")
    rows = [line.split() for line in done.out.splitlines() if "saddle-attraction" in line and "±" in line]
    assert [row[0] for row in rows] == ["10", "20", "30"] * 2
    assert "lambda_max   ▁▄█" in done.out or "lambda_max   ▁▅█" in done.out


def test_json_says_what_the_table_shows() -> None:
    found = call("out.jsonl", "--format", "json", "--match", "fast/*").report
    assert [run["run"] for run in found["runs"]] == ["fast"]
    assert [row["readings"]["lambda_max"]["move"] for row in found["runs"][0]["rows"]] == ["unknown", "up", "up"]


def test_markdown_and_a_file() -> None:
    done = call("out.jsonl", "--format", "markdown", "--output", "trend.md")
    assert (done.code, done.out) == (0, "")
    assert Path("trend.md").read_text(encoding="utf-8").startswith("### fast\n")


def test_several_files_are_one_list(saved: Path) -> None:
    lines = saved.read_text().splitlines()
    Path("a.jsonl").write_text("\n".join(lines[:4]) + "\n")
    Path("b.json").write_text(json.dumps(json.loads(lines[5]), indent=2))
    assert [len(run["rows"]) for run in call("a.jsonl", "b.json", "--format", "json").report["runs"]] == [2, 3]


def test_stdin_is_read_and_torch_is_not(saved: Path) -> None:
    code = (
        "import sys, typer; from samdiag.cli.trend import trend\n"
        "app = typer.Typer(); app.command()(trend); app(['-', '--format', 'json'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    with saved.open() as lines:
        done = subprocess.run([sys.executable, "-c", code], stdin=lines, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["runs"]) == 2


def test_an_encoding_without_blocks_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    from samdiag.cli import saved

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert saved.needs_ascii(whole_file=False)
    assert not saved.needs_ascii(whole_file=True)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not saved.needs_ascii(whole_file=False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.jsonl"], 2, "none.jsonl cannot be read"),
        (["empty.jsonl"], 2, "no report in empty.jsonl"),
        (["folder"], 2, "samdiag inspect folder --format json > out.jsonl"),
        (["w.safetensors"], 2, "w.safetensors is a checkpoint"),
        (["text.jsonl"], 3, "text.jsonl, line 1 is not JSON"),
        (["other.json"], 3, "is not a report of samdiag"),
        (["out.jsonl", "--quantity", "lamda_max"], 2, "did you mean 'lambda_max'"),
        (["out.jsonl", "--format", "jsn"], 2, "did you mean 'json'"),
        (["out.jsonl", "--match", "none*"], 2, "fits none of the 6 reports"),
        (["out.jsonl", "--match", "/(/"], 2, "regular expression"),
        (["out.jsonl", "--output", "out.jsonl"], 2, "out.jsonl"),
    ],
)
def test_a_mistake_is_told_in_two_lines(arguments: list[str], code: int, said: str) -> None:
    from tests.fleet.test_listing import WEIGHTS

    Path("empty.jsonl").touch()
    Path("folder").mkdir()
    Path("w.safetensors").write_bytes(WEIGHTS)
    Path("text.jsonl").write_text("{no json}\n")
    Path("other.json").write_text('{"a": 1}\n')
    done = call(*arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 2
