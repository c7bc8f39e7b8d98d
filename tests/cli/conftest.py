"""A folder with a training file and checkpoints, and the command run in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from samdiag.cli.app import app

PROBLEMS = Path(__file__).with_name("problems.py")
HONEST = ("--rho", "0.1", "--problem", "problems.py:problem")
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
CALL = INTERRUPTIBLE + "from samdiag.cli.app import main; main()"  # where SIGINT was ignored, it no longer is


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON object on stdout."""
        return json.loads(self.out, parse_constant=_invalid)

    @property
    def reports(self) -> list[dict[str, Any]]:
        """The JSON Lines on stdout."""
        return [json.loads(line, parse_constant=_invalid) for line in self.out.splitlines()]


def _invalid(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def clean_process() -> Iterator[None]:
    """What a run imports and puts on `sys.path` is gone after the test."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("_samdiag_user_") or name in {"problems", "training", "case"}:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("SAMDIAG_") or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONPATH"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes: the tests share the cores


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: problems.py, and the honest checkpoint as runs/a.safetensors."""
    folder = tmp_path / "work"
    (folder / ".git").mkdir(parents=True)  # the search for a project file ends here
    (folder / "runs").mkdir()
    folder.chmod(0o755)
    shutil.copy(PROBLEMS, folder)
    monkeypatch.chdir(folder)
    save_file(network().state_dict(), folder / "runs" / "a.safetensors")
    return folder


@pytest.fixture
def run() -> Run:
    """`samdiag …` in this process; what escapes as an exception fails the test."""

    def call(*arguments: object, charset: str = "utf-8") -> Ran:
        result = CliRunner(charset=charset).invoke(app, [str(item) for item in arguments], prog_name="samdiag")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"escaped: {result.exception!r}") from result.exception
        ran = Ran(code=result.exit_code, out=result.stdout, err=result.stderr)
        assert "Traceback" not in ran.out + ran.err
        return ran

    return call


@pytest.fixture
def inspect(run: Run) -> Run:
    """`samdiag inspect …` in this process."""
    return lambda *arguments, **more: run("inspect", *arguments, **more)


@pytest.fixture(scope="session")
def valid() -> Callable[[dict[str, Any]], None]:
    """A check of one report against what `samdiag schema` prints."""
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).validate


def network() -> nn.Sequential:
    """The network of problems.py at the weights of runs/a.safetensors."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))


def save(tensors: dict[str, Any], path: Path | str, **metadata: str) -> Path:
    """A safetensors file of tensors given as lists of float64."""
    save_file(
        {name: torch.as_tensor(value, dtype=torch.float64) for name, value in tensors.items()},
        path,
        metadata=metadata or None,
    )
    return Path(path)


def process(*arguments: object, python: tuple[str, ...] = ("-c", CALL), **more: Any) -> Ran:
    """`samdiag …` in a process of its own."""
    more.setdefault("timeout", 60)
    done = subprocess.run(
        [sys.executable, *python, *(str(item) for item in arguments)],
        capture_output=True,
        text=True,
        check=False,
        **more,
    )
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


def interrupt(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGINT)
