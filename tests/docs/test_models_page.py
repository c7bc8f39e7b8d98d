"""Every row of docs/models.md names tests or cases that exist, and every case is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.curvature.model_cases import CASES

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "models.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") == 2 and ".py::" in line]


def functions(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_what_a_row_names_exists(row: str) -> None:
    named = NAMED.findall(row.rsplit("|", 2)[1])
    assert named
    for file, name in named:
        assert name in (CASES if file.endswith("model_cases.py") else functions(file)), f"{file}::{name}"


def test_every_case_is_named() -> None:
    named = {name for file, name in NAMED.findall(PAGE) if file.endswith("model_cases.py")}
    shown_by_a_trap_test = {"dropout", "right_function"}
    assert set(CASES) == named | shown_by_a_trap_test
    assert len(ROWS) > 25
