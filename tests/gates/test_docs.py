"""docs/gates.md says what the code does."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from samdiag.gates import Baseline, load_baseline
from samdiag.gates.baseline_file import render
from samdiag.gates.harm import HARM, harm
from samdiag.requirements import OPERATORS
from samdiag.spec.parsing import parse
from samdiag.types import VERDICTS_BY_HARM
from tests.reports.samples import diagnosis, measurements

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def test_the_shown_file_is_one(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    file.write_text(block("json"))
    shown = load_baseline(file)
    assert render(Baseline(folder=tmp_path, checkpoints=shown.checkpoints)) == file.read_text()
    assert set(json.loads(block("json"))) == {"checkpoints", "samdiag_baseline"}


def test_the_project_file_is_accepted() -> None:
    gate = parse(tomllib.loads(block("toml")), "docs").gate
    assert gate.require == ["lambda_max < 200", "grad_norm <= 1e-3"]
    assert gate.strict_spec is True


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_the_table_of_degrees(verdict: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{verdict}`" in line.split("|")[1]]
    _, _, number, worse, *_ = (cell.strip() for cell in row.split("|"))
    if verdict not in HARM:
        assert (number, worse) == ("none", "–")
        return
    level = harm(diagnosis(verdict, measurements=measurements()), verdict)
    assert level is not None
    assert (number, worse) == (f"`{level.name}`", "higher" if level.worse > 0 else "lower")


def test_every_operator_is_listed() -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith("operator")]
    assert re.findall(r'"([^"]+)"', line) == list(OPERATORS)


def test_the_python_compiles_and_imports() -> None:
    exec(compile(block("python").split("baseline =")[0], "docs/gates.md", "exec"), {})
