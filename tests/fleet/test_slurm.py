"""Jobs: how a list is dealt out, what each is told, and what becomes of what was finished."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest
import submitit
import torch
from safetensors.torch import save_file

from samdiag.errors import CannotDecide, UsageError
from samdiag.fleet.appending import RecordFile
from samdiag.fleet.desk import Desk, Tally
from samdiag.fleet.slurm import ShardJob, Wanted, submit
from samdiag.reports import json_lines
from samdiag.types import CheckpointInfo, Diagnosis
from tests.fleet.odd_problem import BAD


def record(path: str) -> str:
    found = Diagnosis(
        checkpoint=CheckpointInfo(path=path, fingerprint=f"sha256:{path}"),
        settings={},
        measurements=None,
        verdict="minimum",
        findings=(),
        prescription=None,
        samdiag_version="1",
        request="sha256:0",
    )
    return json_lines.render(found) + "\n"


def desk(folder: Path, paths: str, count: int) -> Desk:
    return Desk(folder=folder, paths=tuple(paths), count=count)


def test_the_list_is_written_once_for_all(tmp_path: Path) -> None:
    odd = Desk(folder=tmp_path / "new" / "jobs", paths=("a b", "c\nd", "é"), count=2)
    odd.set_up()
    assert odd.listing.read_bytes() == "a b\0c\nd\0é\0".encode()
    assert [str(shard) for shard in odd.shards()] == ["1/2", "2/2"]


def test_the_same_again_keeps_the_ledgers(tmp_path: Path) -> None:
    same = desk(tmp_path, "abc", 2)
    same.set_up()
    same.ledger(1).write_text(record("a") + record("zzz"))
    same.records(1).write_text(record("a"))
    same.merged.write_text(record("a"))
    before = same.ledger(1).read_bytes()
    same.set_up()
    assert same.ledger(1).read_bytes() == before
    assert not same.records(1).exists()  # of the last run
    assert not same.merged.exists()


def test_other_shares_get_what_was_finished(tmp_path: Path) -> None:
    before = desk(tmp_path, "abcd", 2)
    before.set_up()
    before.ledger(1).write_text(record("a") + record("c") + record("gone"))
    before.ledger(2).write_text(record("b") + record("d"))
    after = desk(tmp_path, "0abcd", 3)
    after.set_up()
    assert after.ledger(1).read_text() == record("c") + record("gone")
    assert after.ledger(2).read_text() == record("a") + record("d")
    assert after.ledger(3).read_text() == record("b")
    assert sorted(path.name for path in tmp_path.glob("shard-*")) == [after.ledger(i).name for i in (1, 2, 3)]


def test_nothing_is_dealt_out_again_under_a_running_job(tmp_path: Path) -> None:
    before = desk(tmp_path, "ab", 1)
    before.set_up()
    before.ledger(1).write_text(record("a"))
    with RecordFile(before.ledger(1)), pytest.raises(UsageError):
        desk(tmp_path, "ab", 2).set_up()
    assert before.ledger(1).read_text() == record("a")


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        desk(tmp_path / "file" / "x", "a", 1).set_up()
    assert "--folder" in caught.value.todo


def test_records_are_counted_as_they_come(tmp_path: Path) -> None:
    tally = Tally([tmp_path / "1", tmp_path / "2"])
    assert tally.update() == 0
    (tmp_path / "1").write_text("a\nb")
    assert tally.update() == 1
    (tmp_path / "1").write_text("a\nb\n")
    (tmp_path / "2").write_text("c\nd\n")
    assert (tally.update(), tally.update(), tally.num_records) == (3, 0, 4)


def test_threads_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samdiag.fleet.slurm.num_cpus", lambda: 9)
    assert Wanted(cluster="local").num_threads(4) == 2
    assert Wanted(cluster="local", cpus=3).num_threads(4) == 3
    assert Wanted(cluster="slurm").num_threads(4) is None
    assert Wanted(cluster="slurm", cpus=3).num_threads(4) == 3


def test_a_job_that_ran_out_of_time_is_queued_again_as_it_was() -> None:
    job = ShardJob(arguments=("inspect",), folder="/", num_threads=2)
    assert job.checkpoint().function == job
    assert pickle.loads(pickle.dumps(job)) == job


def test_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Slurm here: sbatch is not on PATH"):
        submit([ShardJob(arguments=(), folder="/")], desk(tmp_path, "a", 1), Wanted(cluster="slurm"))


def test_without_submitit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(UsageError) as caught:
        submit([ShardJob(arguments=(), folder="/")], desk(tmp_path, "a", 1), Wanted(cluster="local"))
    assert caught.value.todo == "pip install 'samdiag[slurm]'"


@pytest.mark.slow
def test_a_job_is_the_command_in_a_process_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ShardJob(arguments=("--version",), folder=str(tmp_path))() == 0
    assert capfd.readouterr().out.startswith("samdiag ")
    assert ShardJob(arguments=("inspect", "gone.pt"), folder=str(tmp_path))() == 2


@pytest.mark.slow
def test_it_does_not_outlive_its_time(tmp_path: Path) -> None:
    """What submitit's handler does when the time is over: an exception in the middle of the job."""

    def over(_signal: int, _frame: object) -> None:
        raise SystemExit(-1)

    os.mkfifo(tmp_path / "list")  # nobody writes to it: the command waits for ever
    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, 3.0)
        with pytest.raises(SystemExit):
            ShardJob(arguments=("inspect", "--files-from", "list"), folder=str(tmp_path))()
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_what_the_cluster_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fleet.fake_slurm import install

    install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    with pytest.raises(CannotDecide) as caught:
        submit([ShardJob(arguments=(), folder="/")], desk(tmp_path, "a", 1), Wanted(cluster="slurm", partition="none"))
    assert "invalid partition" in caught.value.what
    assert "--partition" in caught.value.todo


@pytest.mark.slow
def test_a_job_out_of_time_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    """The second checkpoint hangs until submitit's signal comes; what was finished before is not made again."""
    (tmp_path / ".git").mkdir()
    tmp_path.chmod(0o755)
    shutil.copy(Path(__file__).with_name("odd_problem.py"), tmp_path)

    def checkpoint(step: int, mode: float) -> None:
        weights = {"w": torch.tensor([0.5, step / 8]).double(), "mode": torch.tensor([mode]).double()}
        save_file(weights, tmp_path / f"step-{step}.safetensors")

    checkpoint(1, 0.0)
    checkpoint(2, BAD["hangs"])
    listed = ("step-1.safetensors", "step-2.safetensors")
    job = ShardJob(
        arguments=("inspect", *listed, "--problem=odd_problem.py:problem", "--rho=0.1", "--resume=ledger"),
        folder=str(tmp_path),
    )
    executor = submitit.LocalExecutor(tmp_path / "jobs")
    executor.update_parameters(timeout_min=1, signal_delay_s=45)  # the signal comes after 15 seconds
    running = executor.submit(job)
    while not list(tmp_path.glob("hangs-*")):
        assert not running.done()
        time.sleep(0.1)
    before = (tmp_path / "ledger").read_bytes()
    checkpoint(2, 0.0)
    assert running.result() == 0
    assert "Requeued" in running.stdout()
    records = (tmp_path / "ledger").read_bytes()
    assert records.startswith(before)
    assert len(before.splitlines()) == 1
    assert len(records.splitlines()) == 2
