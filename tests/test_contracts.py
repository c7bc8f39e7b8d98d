"""What holds for the whole package: registry entries load, sources are named, imports stay light."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from samdiag import registry
from samdiag.types import VERDICTS_BY_HARM

ROOT = Path(registry.__file__).parent


def tables() -> list[tuple[str, str]]:
    found = []
    for name, table in vars(registry).items():
        if name.isupper() and isinstance(table, dict):
            for value in table.values():
                found += [(name, v) for v in (value.values() if isinstance(value, dict) else [value])]
    return found


@pytest.mark.parametrize(("table", "reference"), tables())
def test_every_registry_entry_loads(table: str, reference: str) -> None:
    assert registry.load(reference) is not None


def test_there_is_a_judge_for_every_verdict_id() -> None:
    assert set(registry.VERDICTS) == set(VERDICTS_BY_HARM)


def sourced() -> list[tuple[str, str]]:
    """Every public function of the theory, and every verdict's judge."""
    found = []
    for folder in ("theory", "verdicts"):
        for path in sorted((ROOT / folder).glob("*.py")):
            functions = [n.name for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.FunctionDef)]
            wanted = functions if folder == "theory" else [n for n in functions if n == "judge"]
            found += [(f"samdiag.{folder}.{path.stem}", n) for n in wanted if not n.startswith("_")]
    return found


@pytest.mark.parametrize(("module", "name"), sourced())
def test_theory_and_verdicts_name_their_source(module: str, name: str) -> None:
    assert "Source:" in (inspect.getdoc(registry.load(f"{module}:{name}")) or "")


@pytest.mark.parametrize("variant", registry.VARIANTS)
def test_variants_name_their_source(variant: str) -> None:
    assert "Source:" in (inspect.getdoc(registry.load(registry.VARIANTS[variant])) or "")


@pytest.mark.parametrize("command", [["--help"], ["inspect", "--help"], ["--version"], ["demo", "--help"]])
def test_help_imports_neither_torch_nor_numpy(command: list[str]) -> None:
    code = (
        "import sys; from samdiag.cli.app import app\n"
        f"try: app({command!r})\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'numpy', 'pyhessian'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_saved_report_renders_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import samdiag.reports.text, samdiag.reports.json_lines, samdiag.reports.schema\n"
        "import samdiag.gates, samdiag.verdicts, samdiag.advice, samdiag.theory\n"
        "samdiag.reports.schema.report_schema()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_file_is_past_400_lines() -> None:
    long = {str(p): n for p in ROOT.rglob("*.py") if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long
