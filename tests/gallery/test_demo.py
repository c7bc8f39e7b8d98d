"""`samdiag demo digits`: what it writes, and where it speaks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from samdiag.cli.demo import train_demo
from samdiag.errors import UsageError
from samdiag.gallery import digits_runs


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {name: replace(recipe, steps=100) for name, recipe in digits_runs.RUNS.items()}
    monkeypatch.setattr(digits_runs, "RUNS", runs)


@pytest.mark.usefixtures("_short")
def test_it_writes_two_stamped_checkpoints(tmp_path: Path) -> None:
    paths = train_demo(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["healthy.safetensors", "stuck.safetensors"]
    for path, rho in zip(paths, (0.05, 2.0), strict=True):
        with safe_open(path, framework="pt") as file:
            stamp = json.loads(file.metadata()["samdiag"])
            assert sum(file.get_tensor(name).numel() for name in file.keys()) == 2410  # noqa: SIM118 - no iterator
        assert stamp["model"]["gallery"] == "digits-mlp"
        assert stamp["data"]["gallery"] == "digits"
        assert stamp["sam"]["rho"] == rho
        assert stamp["sam"]["lr"] == 0.2


@pytest.mark.usefixtures("_short")
def test_progress_goes_to_stderr_in_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_demo(tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "healthy: step 100 of 100" in captured.err
    assert "\x1b" not in captured.err


@pytest.mark.usefixtures("_short")
def test_running_it_again_gives_the_same_files(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in train_demo(tmp_path)]
    assert [path.read_bytes() for path in train_demo(tmp_path)] == first


@pytest.mark.usefixtures("_short")
def test_a_file_in_the_way_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        train_demo(tmp_path / "file")


def test_the_command_is_imported_without_torch() -> None:
    code = "import sys, samdiag.cli.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
