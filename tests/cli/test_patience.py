"""Time limits, interruptions and solver flags at the command line, on real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn

from tests.cli.conftest import CALL, Run, interrupt
from tests.cli.test_processes import wait_for

A = "runs/a.safetensors"
SLOW = """
import time
from pathlib import Path
from samdiag.curvature.lanczos_run import LanczosRun
step = LanczosRun.step
def slow(self):
    if self.products >= 6:
        Path("solving").touch()
        time.sleep(0.5)
    step(self)
LanczosRun.step = slow
"""


def test_the_first_ctrl_c_returns_the_best_answer_so_far(work: Path) -> None:
    wide = work / "runs" / "wide.safetensors"
    save_file(nn.Sequential(nn.Linear(2, 100), nn.Tanh(), nn.Linear(100, 2)).state_dict(), wide)
    command = [sys.executable, "-c", SLOW + CALL, "inspect", str(wide), "--rho", "0.1", "--format", "json"]
    child = subprocess.Popen(
        [*command, "--problem", "problems.py:wide", "--tol", "1e-6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(work / "solving", child)
        interrupt(child)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    report = json.loads(out)
    assert report["failure"] is None
    assert report["measurements"]["solver"]["stopped"] == "interrupted"
    assert report["measurements"]["lambda_min_bound"] < report["measurements"]["lambda_min"]["value"]
    assert "Ctrl-C again to stop at once" in err
    assert "interrupted; 0 of 1 checkpoint(s) finished" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("text", ["0", "-3s", "soon", "5d", ""])
def test_a_time_limit_that_is_no_duration(text: str, work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--time-limit", text)
    assert ran.code == 2
    assert "is not a duration" in ran.err
    assert "90s, 5m, 1h" in ran.err


@pytest.mark.parametrize(("flag", "value"), [("--until", "bored"), ("--solver", "magic"), ("--block", "0")])
def test_solver_flags_are_checked_before_anything_is_measured(flag: str, value: str, work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", flag, value)
    assert ran.code == 2
    assert flag.removeprefix("--") in ran.err
    assert not ran.out
