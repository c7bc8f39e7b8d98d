"""Workers: the records of one process, in order, whatever happens to the processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from samdiag.errors import CannotDecide, UsageError
from samdiag.fleet import capacity, workers
from samdiag.fleet.capacity import num_cpus, parse_workers, shares
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.session import Session
from samdiag.fleet.workers import LOOK_AHEAD, diagnose_in_order, how_it_ended
from samdiag.types import Diagnosis
from tests.fleet.odd_problem import BAD

PROBLEM = Path(__file__).with_name("odd_problem.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The problem, and one checkpoint per way to go wrong beside ordinary ones."""
    folder = tmp_path_factory.mktemp("workers")
    folder.chmod(0o755)
    (folder / ".git").mkdir()
    shutil.copy(PROBLEM, folder)
    for number, name in enumerate(("a", "b", "c", "d", "e", "f", *BAD)):
        weights = {"w": torch.tensor([0.5 + number / 8, 0.25]), "mode": torch.tensor([BAD.get(name, 0.0)])}
        save_file({key: value.double() for key, value in weights.items()}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def asked(folder: Path) -> Asked:
    return Asked(overrides={"problem": "odd_problem.py:problem", "sam.rho": 0.1}, cwd=folder)


def entries(folder: Path, *names: str) -> list[Entry]:
    return [Entry(path=str(folder / f"{name}.safetensors")) for name in names]


def names(diagnoses: list[Diagnosis]) -> list[str]:
    return [Path(d.checkpoint.path).stem for d in diagnoses if d.checkpoint]


def record(diagnosis: Diagnosis) -> dict[str, Any]:
    """The JSON object without what may differ: seconds, and the number of threads."""
    found = diagnosis.to_dict()
    found.pop("timings")
    found["environment"].pop("device_name", None)
    if found["measurements"] is not None:
        found["measurements"]["engine"] = None  # chosen by timing where there is a choice; holds seconds
    return found


@pytest.fixture(scope="module")
def alone(folder: Path, asked: Asked) -> list[Diagnosis]:
    """Without workers."""
    with Session(asked) as session:
        return [session.inspect(entry) for entry in entries(folder, "a", "b", "raises", "exits", "c", "gone", "d")]


@pytest.fixture(scope="module")
def stages() -> list[tuple[str, str]]:
    return []


@pytest.fixture(scope="module")
def by_two(folder: Path, asked: Asked, stages: list[tuple[str, str]]) -> list[Diagnosis]:
    """By two workers, one of which is killed."""

    def progress(entry: Entry, what: str, _count: int) -> None:
        stages.append((Path(entry.path).stem, what))

    listed = entries(folder, "a", "killed", "b", "raises", "exits", "interrupts", "c", "gone", "d")
    return list(diagnose_in_order(iter(listed), asked, num_workers=2, progress=progress))


def test_results_are_in_the_order_of_the_list(by_two: list[Diagnosis]) -> None:
    assert names(by_two) == ["a", "killed", "b", "raises", "exits", "interrupts", "c", "gone", "d"]


def test_records_are_those_of_one_process(by_two: list[Diagnosis], alone: list[Diagnosis]) -> None:
    common = [d for d in by_two if names([d])[0] not in {"killed", "interrupts"}]
    assert [record(d) for d in common] == [record(d) for d in alone]
    assert [d.failure is None for d in alone] == [True, True, False, False, True, False, True]


def test_a_killed_worker_costs_its_entry_alone(by_two: list[Diagnosis]) -> None:
    failed = [d for d in by_two if d.failure and d.failure.exit_code == 3]
    assert names(failed) == ["killed", "interrupts"]
    assert failed[0].failure is not None
    assert failed[0].failure.what.endswith("was killed by SIGKILL, as the system does when memory runs out")
    assert "without --workers" in failed[0].failure.todo


def test_a_failure_is_known_by_what_was_asked(by_two: list[Diagnosis], folder: Path, asked: Asked) -> None:
    """So that it is not taken for another seed's, or for one of other settings."""
    with Session(asked) as session:
        for diagnosis in by_two[1], by_two[5]:
            identity = session.identify(entries(folder, *names([diagnosis]))[0])
            assert diagnosis.checkpoint is not None
            assert (diagnosis.checkpoint.fingerprint, diagnosis.request) == (identity.fingerprint, identity.request)


def test_exceptions_stay_in_their_record(by_two: list[Diagnosis]) -> None:
    what = {names([d])[0]: d.failure.what for d in by_two if d.failure}
    assert "ValueError: no loss today" in what["raises"]
    assert "SystemExit" in what["exits"]
    assert what["interrupts"] == "the problem's own code raised KeyboardInterrupt"


def test_stages_are_told(by_two: list[Diagnosis], stages: list[tuple[str, str]]) -> None:
    assert {name for name, _ in stages} >= {"a", "b"}


@pytest.fixture
def unpicklable() -> Asked:
    """An `Asked` that ends every process in which it arrives, before torch is loaded there."""
    return Asked(overrides={"measure.device": "cpu"}, config=_EndsOnArrival("x"))


class _EndsOnArrival(str):
    def __reduce__(self) -> Any:
        return os._exit, (9,)


def test_workers_that_never_begin_are_given_up(unpicklable: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DEATHS", 2)
    monkeypatch.setattr(workers, "shares", lambda _n, _asked: (capacity.Share(num_threads=1),))
    with pytest.raises(CannotDecide) as caught:
        list(diagnose_in_order([Entry(path="a"), Entry(path="b")], unpicklable, num_workers=1))
    assert "died 2 times in a row, the last one ended with exit code 9" in caught.value.what


@pytest.mark.slow
def test_one_worker_makes_the_same(folder: Path, asked: Asked, alone: list[Diagnosis]) -> None:
    listed = entries(folder, "a", "b", "raises", "exits", "c", "gone", "d")
    assert [record(d) for d in diagnose_in_order(listed, asked, num_workers=1)] == [record(d) for d in alone]


@pytest.mark.slow
def test_repeated_deaths_end_the_list(folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DEATHS", 2)
    listed = entries(folder, "a", "ends", "b", "ends", "ends", "c")
    made: list[Diagnosis] = []  # extended one by one
    with pytest.raises(CannotDecide, match="died 2 times in a row, the last one ended with exit code 7"):
        made.extend(diagnose_in_order(listed, asked, num_workers=1))
    assert names(made) == ["a", "ends", "b", "ends", "ends"]
    assert [d.failure is None for d in made] == [True, False, True, False, False]


@pytest.mark.slow
def test_stop_finishes_what_is_in_hand(folder: Path, asked: Asked) -> None:
    made: list[Diagnosis] = []
    for diagnosis in diagnose_in_order(entries(folder, *"abcdef"), asked, num_workers=2, stop=lambda: len(made) >= 1):
        made.append(diagnosis)
    assert names(made) == list("abcdef")[: len(made)]
    assert 1 <= len(made) < 6
    assert all(d.failure is None for d in made)


@pytest.mark.slow
def test_no_more_entries_are_taken_than_look_ahead(folder: Path, asked: Asked) -> None:
    taken = 0

    def counted() -> Iterator[Entry]:
        nonlocal taken
        for entry in entries(folder, *"abcdefabcdefabcdefabcdef"):
            taken += 1
            yield entry

    for made, _ in enumerate(diagnose_in_order(counted(), asked, num_workers=1)):
        assert taken <= made + 1 + LOOK_AHEAD


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.workers import diagnose_in_order
asked = Asked(overrides={"problem": "odd_problem.py:problem", "sam.rho": 0.1})
for d in diagnose_in_order([Entry(path=p) for p in sys.argv[1:]], asked, num_workers=2):
    print(d.checkpoint.path, d.verdict, flush=True)
"""


def running(folder: Path, *listed: str) -> subprocess.Popen[str]:
    """A process with two workers that both hang in a loss, in a process group of its own."""
    for old in folder.glob("hangs-*"):
        old.unlink()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *(f"{name}.safetensors" for name in listed)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60  # seconds: torch is imported three times
    while len(list(folder.glob("hangs-*"))) < listed.count("hangs"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return process


def workers_of(folder: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in folder.glob("hangs-*")]


def gone(pid: int) -> bool:
    """Whether the process has ended, within ten seconds."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(folder: Path, number: int) -> None:
    process = running(folder, "hangs", "hangs")
    found = workers_of(folder)
    assert len(found) == 2
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert all(gone(pid) for pid in found)


@pytest.mark.slow
def test_ctrl_c_of_the_terminal_reaches_the_parent_alone(folder: Path) -> None:
    """To the whole group, as a terminal sends it: the workers write no traceback and the parent decides."""
    process = running(folder, "a", "hangs", "hangs")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out.startswith("a.safetensors ")
    assert err.count("KeyboardInterrupt") == 1
    assert "a line of the problem's own" in err  # and not in out
    assert "a line of a program that it starts" in err
    assert "a line of" not in out


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL, as the system does when memory runs out"),
        (-7, "was killed by SIGBUS, as the system does when a file is cut short while it is read"),
        (3, "ended with exit code 3"),
        (-250, "was killed by signal 250"),
    ],
)
def test_how_it_ended(code: int, text: str) -> None:
    assert how_it_ended(code) == text


CPU = Asked(overrides={"measure.device": "cpu"})


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5", "²", "99999"])
def test_numbers_of_workers_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_workers(text, CPU)
    assert "--workers" in caught.value.what
    assert "--workers 4" in caught.value.todo


def test_auto_is_half_the_cpus_or_one_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "num_cpus", lambda: 9)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert parse_workers("auto", CPU) == 4
    assert parse_workers("AUTO", Asked()) == 3
    assert parse_workers("7", Asked()) == 7
    monkeypatch.setattr(capacity, "num_cpus", lambda: 1)
    assert parse_workers("auto", CPU) == 1


def test_gpus_are_dealt_out_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(capacity, "num_cpus", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab")
    anything = Asked(cwd=tmp_path)
    assert [(s.visible_gpu, s.num_threads) for s in shares(3, anything)] == [("5", 2), ("GPU-ab", 2), ("5", 2)]
    named = Asked(overrides={"measure.device": "cuda:1"}, cwd=tmp_path)
    assert [s.visible_gpu for s in shares(2, named)] == [None, None]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [s.visible_gpu for s in shares(2, anything)] == ["0", "1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert [s.visible_gpu for s in shares(2, anything)] == [None, None]


def test_threads_are_shared_unless_they_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "num_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [s.num_threads for s in shares(3, CPU)] == [2, 2, 2]
    assert shares(20, CPU)[0].num_threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert shares(3, CPU)[0].num_threads == 5


@pytest.mark.parametrize(("text", "limit"), [("50000 100000", 1), ("max 100000", None), ("rubbish", None)])
def test_a_containers_quota_counts(
    text: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    monkeypatch.setattr(capacity, "CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(4)), raising=False)
    assert num_cpus() == (limit or 4)
