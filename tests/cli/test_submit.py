"""`samdiag submit`: real processes through submitit, on this machine and through stand-ins for Slurm's programs.

No real Slurm was there: what is tested is everything up to `sbatch` and from the job's script on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from samdiag.cli.submit import submit
from tests.cli.conftest import Ran
from tests.fleet.fake_slurm import install
from tests.fleet.odd_problem import BAD

ODD = Path(__file__).parents[1] / "fleet" / "odd_problem.py"
ASK = ("--problem", "odd_problem.py:problem", "--rho", "0.1")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a problem, and checkpoints of five steps."""
    folder = tmp_path / "work"
    (folder / ".git").mkdir(parents=True)
    (folder / "runs").mkdir()
    folder.chmod(0o755)
    shutil.copy(ODD, folder)
    for step in range(1, 6):
        checkpoint(folder, f"step-{step}", 0.4 + step / 10)
    monkeypatch.chdir(folder)
    return folder


def checkpoint(folder: Path, name: str, x: float, mode: float = 0.0) -> None:
    weights = {"w": torch.tensor([x, 0.25]).double(), "mode": torch.tensor([mode]).double()}
    save_file(weights, folder / "runs" / f"{name}.safetensors")


@pytest.fixture
def call() -> Callable[..., Ran]:
    """`samdiag submit …` in this process."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(submit)

    def run(*words: str) -> Ran:
        result = CliRunner().invoke(app, list(words), prog_name="samdiag submit")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"escaped: {result.exception!r}") from result.exception
        return Ran(code=result.exit_code, out=result.stdout, err=result.stderr)

    return run


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that would be submitted."""
    jobs: list[Any] = []

    def keep(given: Sequence[Any], _desk: Any, _wanted: Any) -> Any:
        jobs.extend(given)
        return [type("Job", (), {"job_id": "7_0"})] * len(given)

    monkeypatch.setattr("samdiag.fleet.slurm.submit", keep)
    return jobs


def paths(out: str) -> list[str]:
    return [Path(json.loads(line)["checkpoint"]["path"]).stem for line in out.splitlines()]


def test_what_each_job_is_told(work: Path, call: Callable[..., Ran], handed: list[Any]) -> None:
    ran = call(
        *("--jobs", "2", "--no-wait", "--cluster", "local", "--", "runs", "--last", "4", "--match", "*step*", *ASK),
        *("--no-nesterov", "--fail-on", "bounce", "--require", "lambda_max < 9", "--format", "json", "--cross-check"),
    )
    assert ran.code == 0, ran.err
    jobs = work / "samdiag-jobs"
    assert [job.folder for job in handed] == [str(work)] * 2
    assert sorted(handed[1].arguments) == sorted(
        [
            "inspect",
            "--problem=odd_problem.py:problem",
            "--rho=0.1",
            "--no-nesterov",
            "--cross-check",
            f"--files-from={jobs}/list",
            "--null",
            "--shard=2/2",
            f"--resume={jobs}/shard-2-of-2.jsonl",
            "--format=json",
            f"--output={jobs}/records-2-of-2.jsonl",
        ]
    )
    listed = (jobs / "list").read_text().split("\0")
    assert listed == [*(f"runs/step-{step}.safetensors" for step in range(2, 6)), ""]
    said = ran.err.splitlines()
    assert said[0] == f"samdiag: 4 diagnoses in 2 job(s) on this machine, {jobs}"
    assert said[2].split()[:2] == ["samdiag", "merge"]
    assert said[2].endswith("--fail-on=bounce '--require=lambda_max < 9' --format=json")


def test_no_more_jobs_than_checkpoints(work: Path, call: Callable[..., Ran], handed: list[Any]) -> None:
    assert call("--no-wait", "--jobs", "99", "--", "runs", *ASK).code == 0
    assert len(handed) == 5


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--jobs", "0", "--", "runs"), "--jobs 0 is not positive"),
        (("--mem", "-1", "--", "runs"), "--mem -1.0 is not positive"),
        (("--cluster", "slrum", "--", "runs"), "--cluster 'slrum' is unknown; did you mean"),
        (("--", "runs", "--shard", "1/2"), "--shard cannot be submitted: the shares are dealt out by --jobs"),
        (("--", "runs", "--resume", "x"), "--resume cannot be submitted"),
        (("--", "runs", "--explain"), "--explain cannot be submitted"),
        (("--", "runs", "--emit", "x"), "--emit cannot be submitted"),
        (("--", "runs", "--baseline", "x", "--update-baseline"), "--update-baseline cannot be submitted"),
        (("--", "runs", "--match", "x*"), "x*"),
        (("--", "runs", "--rhoo", "1"), "--rhoo"),
        (("--", "runs", "--last", "two"), "--last"),
        (("--", "runs", "--fail-on", "sadle"), "sadle"),
        (("--", "runs", "--require", "lambda_max <"), "--require"),
        (("--", "runs", "--format", "jsn"), "jsn"),
        (("--", "runs", "--baseline", "none.json"), "none.json"),
    ],
)
def test_refused_before_anything_is_submitted(
    words: tuple[str, ...], found: str, work: Path, call: Callable[..., Ran], handed: list[Any]
) -> None:
    ran = call(*words)
    assert ran.code == 2
    assert found in ran.err
    assert len(ran.err.splitlines()) == 2
    assert handed == []
    assert not (work / "samdiag-jobs").exists()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit waits fifteen seconds for the result of a dead job to come over the network."""
    from submitit.core.core import Job

    monkeypatch.setattr(Job, "_results_timeout_s", 0)


@pytest.mark.slow
def test_jobs_of_this_machine(work: Path, call: Callable[..., Ran], quick: None) -> None:
    """Dies, is said with its log, is corrected, goes on."""
    checkpoint(work, "step-3", 0.7, BAD["killed"])
    words = ("--jobs", "2", "--cluster", "local", "--folder", "jobs", "--", "runs", *ASK, "--format", "json")
    first = call(*words)
    assert first.code == 3
    assert "was killed by SIGKILL" in first.err
    assert f"its log is {work}/jobs/jobs/" in first.err
    gap = "2 of 5 checkpoints have no record: runs/step-3.safetensors, runs/step-5.safetensors"
    assert f"samdiag: {gap}\n" in first.err
    assert paths(first.out) == ["step-1", "step-2", "step-4"]
    checkpoint(work, "step-3", 0.7)
    before = (work / "jobs" / "shard-2-of-2.jsonl").read_bytes()
    again = call(*words)
    assert (again.code, paths(again.out)) == (0, [f"step-{step}" for step in range(1, 6)])
    assert (work / "jobs" / "merged.jsonl").read_text() == again.out
    assert (work / "jobs" / "shard-2-of-2.jsonl").read_bytes() == before  # nothing was made twice
    alone = subprocess.run(
        [sys.executable, "-m", "samdiag", "inspect", "runs", *ASK, "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [_numbers(line) for line in again.out.splitlines()] == [
        _numbers(line) for line in alone.stdout.splitlines() if line[0] == "{"
    ]
    gated = call(*words, "--require", "loss < 0")
    assert gated.code == 1


def _numbers(line: str) -> Any:
    found = json.loads(line)
    found["measurements"]["engine"] = None
    return {key: value for key, value in found.items() if key not in {"timings", "environment"}}


@pytest.mark.slow
def test_usage_of_all_jobs(work: Path, call: Callable[..., Ran]) -> None:
    ran = call("--jobs", "1", "--cluster", "local", "--", "runs", "--problem", "nowhere.py:problem", "--rho", "1")
    assert ran.code == 2


@pytest.mark.slow
def test_through_stand_ins_for_slurm(
    work: Path, call: Callable[..., Ran], quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    install(programs)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(programs))
    options = ("--jobs", "2", "--timeout-min", "90", "--partition", "gpu", "--mem", "4", "--cpus", "1")
    asked = ("--", "runs", *ASK, "--format", "json")
    failed = call(*options, "--setup", "exit 1", *asked)
    assert failed.code == 3
    assert failed.err.count("state FAILED") == 2
    ran = call(*options, "--setup", "export OF_THE_SETUP=1", *asked)
    assert (ran.code, paths(ran.out)) == (0, [f"step-{step}" for step in range(1, 6)]), ran.err
    script = (programs / "script").read_text()
    for line in ("time=90", "partition=gpu", "mem=4GB", "cpus-per-task=1", "array=0-1%2", "job-name=samdiag"):
        assert f"#SBATCH --{line}\n" in script
    assert "export OF_THE_SETUP=1" in script
