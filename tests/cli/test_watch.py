"""`samdiag watch`: flags, exit codes, history, the user's command, signals, and a real run that is followed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from samdiag.errors import CannotDecide
from samdiag.fleet.session import Session
from tests.cli.conftest import CALL, Ran, Run, network

QUICK = ("--settle", "0.05", "--interval", "0.05")
SADDLE = ("--problem", "problems.py:saddle", "--rho", "0.6", "--variant", "usam")
WRITE = "import sys; open('told.jsonl', 'a').write(sys.stdin.read())"


@pytest.fixture
def watching(work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`samdiag watch …` in this process, diagnoses included: to start another one for each test takes seconds."""
    monkeypatch.setattr("samdiag.fleet.apart.Apart", Session)
    return lambda *arguments: run("watch", *arguments)


@pytest.fixture
def saddle_run(work: Path) -> Path:
    """A run whose first checkpoint is on a slope and whose second is caught in the saddle."""
    folder = work / "saddle"
    folder.mkdir()
    for step, place in ((1, [2.0, 1.0]), (2, [0.0, 0.0])):
        (folder / f"step-{step}.safetensors").write_bytes(weights(place))
    return folder


def weights(place: list[float]) -> bytes:
    return save({"w": torch.tensor(place, dtype=torch.float64)})


def told() -> list[dict[str, Any]]:
    """What the user's command was told, call by call."""
    return [json.loads(line) for line in Path("told.jsonl").read_text().splitlines()]


def paths(ran: Ran) -> list[str]:
    return [report["checkpoint"]["path"] for report in ran.reports]


def writer(code: str = WRITE) -> str:
    return shlex.join([sys.executable, "-c", code])


# ---------------------------------------------------------------- reports and exit codes


def test_one_line_per_checkpoint_in_the_order_of_steps(watching: Run, saddle_run: Path) -> None:
    ran = watching("saddle", "--once", *QUICK, *SADDLE)
    names, *heads = [line for line in ran.out.splitlines() if not line.startswith("    ")]
    assert names.split()[0] == "verdict"
    assert [head.split()[-1] for head in heads] == ["saddle/step-1.safetensors", "saddle/step-2.safetensors"]
    assert "saddle-attraction" in heads[1]
    assert ran.code == 1
    assert "the watch ends: everything that was there was looked at" in ran.err


def test_json_is_the_record_of_inspect(watching: Run, saddle_run: Path, valid: Any) -> None:
    ran = watching("saddle", "--once", "--format", "json", *QUICK, *SADDLE)
    for report in ran.reports:
        valid(report)
    assert paths(ran) == ["saddle/step-1.safetensors", "saddle/step-2.safetensors"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--fail-on", "never"), 0),
        (("--fail-on", "bounce"), 0),
        (("--fail-on", "saddle-attraction"), 1),
        (("--fail-on", "never", "--require", "lambda_max < 1"), 1),
        (("--match", "step-1*"), 0),
        (("--match", "no-such-*"), 3),
    ],
)
def test_the_exit_code_is_that_of_the_gate_over_all(
    watching: Run, saddle_run: Path, more: tuple[str, ...], code: int
) -> None:
    assert watching("saddle", "--once", *QUICK, *SADDLE, *more).code == code


def test_one_bad_file_is_a_line_with_its_error_and_leaves_a_gap(watching: Run, saddle_run: Path) -> None:
    (saddle_run / "step-0.safetensors").write_bytes(weights([1.0]))  # of another model
    ran = watching("saddle", "--once", "--fail-on", "never", *QUICK, *SADDLE)
    assert ran.code == 3
    assert [path in ran.out for path in ("step-0.", "step-1.", "step-2.")] == [True] * 3


def test_where_every_checkpoint_fails_for_usage_so_does_the_watch(watching: Run, saddle_run: Path) -> None:
    ran = watching("saddle", "--once", *QUICK, "--problem", "problems.py:saddle")  # no rho
    assert ran.code == 2


def test_quiet(watching: Run, saddle_run: Path) -> None:
    once = ("saddle", "--once", *QUICK, *SADDLE)
    ran = watching(*once, "-q")
    assert (ran.err, ran.code) == ("", 1)
    assert ran.out
    ran = watching(*once, "-qq")
    assert (ran.out, ran.err, ran.code) == ("", "", 1)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("nowhere",), "nowhere does not exist"),
        (("problems.py",), "problems.py is not a folder"),
        (("runs", "--fail-on", "bouncy"), "--fail-on names an unknown verdict: 'bouncy'"),
        (("runs", "--settle", "soon"), "--settle 'soon' is not a duration"),
        (("runs", "--once", "--idle-exit", "5m"), "--once ends by itself"),
        (("runs", "--once", "--until-file", "DONE"), "--once ends by itself"),
        (("runs", "--on-finding", "no-such-program"), "--on-finding: there is no program 'no-such-program'"),
        (("runs", "--match", "/(/"), "--match /(/ is not a regular expression"),
        (("runs", "--format", "xml"), "--format 'xml' is unknown"),
        (("runs", "--baseline", "none.json"), "none.json"),
    ],
)
def test_a_mistake_is_said_at_once(watching: Run, arguments: tuple[str, ...], what: str) -> None:
    ran = watching(*arguments)
    assert ran.code == 2
    assert what in ran.err.splitlines()[0]
    assert ran.err.splitlines()[1].startswith("  ")


def test_exit_on_finding_ends_at_the_first(watching: Run, saddle_run: Path) -> None:
    (saddle_run / "step-3.safetensors").write_bytes(weights([2.0, 1.0]))
    ran = watching("saddle", "--exit-on-finding", "--idle-exit", "30s", "--format", "json", *QUICK, *SADDLE)
    assert paths(ran) == ["saddle/step-1.safetensors", "saddle/step-2.safetensors"]
    assert ran.code == 1


# ---------------------------------------------------------------- the user's command


def test_the_command_is_told_of_what_fails_and_of_nothing_else(watching: Run, saddle_run: Path) -> None:
    ran = watching("saddle", "--once", "--format", "json", "--on-finding", writer(), *QUICK, *SADDLE)
    [message] = told()
    assert message["checkpoint"] == "saddle/step-2.safetensors"
    assert [(hit["kind"], hit["name"]) for hit in message["hits"]] == [("finding", "saddle-attraction")]
    assert message["record"] == ran.reports[1]


@pytest.mark.parametrize(
    "name", ["$(touch pwned)", "`touch pwned`", "a; touch pwned", "a' | touch pwned '", "\x1b[2J\n"]
)
def test_a_hostile_checkpoint_name_injects_nothing(watching: Run, work: Path, name: str) -> None:
    (work / "hostile").mkdir()
    (work / "hostile" / f"{name}.safetensors").write_bytes(weights([0.0, 0.0]))
    ran = watching("hostile", "--once", "--on-finding", writer(), *QUICK, *SADDLE)
    assert [message["checkpoint"] for message in told()] == [f"hostile/{name}.safetensors"]
    assert not list(work.rglob("pwned"))
    assert "\x1b" not in ran.out + ran.err
    assert ran.code == 1


def test_a_command_that_fails_does_not_end_the_watch(watching: Run, saddle_run: Path) -> None:
    (saddle_run / "step-3.safetensors").write_bytes(weights([0.0, 0.001]))
    ran = watching("saddle", "--once", "--on-finding", writer("raise SystemExit(9)"), *QUICK, *SADDLE)
    said = "samdiag: --on-finding for saddle/step-2.safetensors ended with exit code 9; the watch goes on"
    assert said in ran.err
    assert ran.out.count("saddle/step-") == 3


# ---------------------------------------------------------------- history


def test_a_watch_with_the_same_history_makes_nothing_twice(watching: Run, saddle_run: Path) -> None:
    once = ("saddle", "--once", "--history", "h.jsonl", "--on-finding", writer(), *QUICK, *SADDLE)
    first = watching(*once)
    kept = Path("h.jsonl").read_text()
    assert len(kept.splitlines()) == 2
    again = watching(*once)
    assert Path("h.jsonl").read_text() == kept
    assert (again.out, again.code) == ("", first.code) == ("", 1)
    assert "2 known from the history" in again.err
    assert len(told()) == 1


def test_new_content_and_failures_are_made_again(watching: Run, saddle_run: Path) -> None:
    once = ("saddle", "--once", "--history", "h.jsonl", "--format", "json", *QUICK, *SADDLE)
    (saddle_run / "step-3.safetensors").write_bytes(weights([1.0]))
    assert len(watching(*once).reports) == 3
    (saddle_run / "step-1.safetensors").write_bytes(weights([2.0, 1.5]))
    assert paths(watching(*once)) == ["saddle/step-1.safetensors", "saddle/step-3.safetensors"]
    lines = [json.loads(line) for line in Path("h.jsonl").read_text().splitlines()]
    assert [line["checkpoint"]["path"][-13:-12] for line in lines] == ["1", "2", "1", "3"]
    assert [line["failure"] is None for line in lines] == [True, True, True, False]


def test_a_full_disk_ends_the_watch_and_loses_no_report(
    watching: Run, saddle_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise CannotDecide("h.jsonl could not be written: No space left on device", "make room")

    monkeypatch.setattr("samdiag.fleet.ledger.Ledger.append", full)
    ran = watching("saddle", "--once", "--history", "h.jsonl", "--format", "json", *QUICK, *SADDLE)
    assert paths(ran) == ["saddle/step-1.safetensors"]
    assert ran.code == 3
    assert "No space left on device" in ran.err


def test_other_settings_are_another_question(watching: Run, saddle_run: Path) -> None:
    once = ("saddle", "--once", "--history", "h.jsonl", "--format", "json", *QUICK, *SADDLE)
    watching(*once)
    assert len(watching(*once, "--lr", "0.001").reports) == 2
    assert len(Path("h.jsonl").read_text().splitlines()) == 4


# ---------------------------------------------------------------- a real run


def test_a_real_run_is_followed_to_its_end(work: Path, run: Run) -> None:
    """A thread trains and saves as training scripts do, in pieces and by renaming, while the watch runs."""
    folder = work / "live"
    folder.mkdir()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        for step in range(1, 6):
            optimizer.zero_grad()
            model(torch.ones(4, 2)).square().sum().backward()
            optimizer.step()
            data = save(model.state_dict())
            if step % 2:
                with (folder / f"step-{step}.safetensors").open("wb") as file:
                    for start in range(0, len(data), 200):
                        file.write(data[start : start + 200])
                        file.flush()
                        time.sleep(0.02)
            else:
                (folder / f"step-{step}.safetensors.tmp").write_bytes(data)
                os.replace(folder / f"step-{step}.safetensors.tmp", folder / f"step-{step}.safetensors")
            (folder / "last.safetensors").write_bytes(data)
            time.sleep(0.2)
        (folder / "DONE").touch()

    training = threading.Thread(target=train)
    training.start()
    ran = run(
        *(
            "watch",
            "live",
            "--until-file",
            "DONE",
            "--format",
            "json",
            "--rho",
            "0.1",
            "--problem",
            "problems.py:problem",
        ),
        *("--fail-on", "never", "--history", "h.jsonl", *QUICK),
    )
    training.join()
    found = paths(ran)
    assert [path for path in found if "step" in path] == [f"live/step-{step}.safetensors" for step in range(1, 6)]
    assert found[-1] == "live/last.safetensors" or "live/last.safetensors" in found
    assert all(report["failure"] is None for report in ran.reports)
    fingerprints = {report["checkpoint"]["path"]: report["checkpoint"]["fingerprint"] for report in ran.reports}
    assert fingerprints["live/last.safetensors"] == fingerprints["live/step-5.safetensors"]
    assert Path("h.jsonl").read_text() == ran.out
    assert ran.code in (0, 3)  # of five steps of a toy: undecided is no failure of the watch


# ---------------------------------------------------------------- signals

SLOW = """
import pathlib, time
from problems import saddle as fast
def saddle():
    print("a line of the training script's own")
    pathlib.Path("begun").touch()
    for _ in range(3000):
        if pathlib.Path("go").exists():
            break
        time.sleep(0.01)
    return fast()
"""


@pytest.fixture
def slowly(work: Path, saddle_run: Path) -> tuple[str, ...]:
    """Arguments of a watch whose first diagnosis waits for the file `go`."""
    (work / "slow.py").write_text(SLOW)
    (work / "samdiag.toml").write_text('problem = "slow.py:saddle"\npythonpath = ["."]\n')
    return ("saddle", "--history", "h.jsonl", "--idle-exit", "30s", *QUICK, *SADDLE[2:])


def wait_for(there: Callable[[], bool]) -> None:
    for _ in range(3000):
        if there():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def finished() -> int:
    return Path("h.jsonl").read_text().count("\n") if Path("h.jsonl").exists() else 0


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Inside, another thread does something."""
    thread = threading.Thread(target=action)
    thread.start()
    yield
    thread.join()


def send(*numbers: signal.Signals) -> None:
    """Signals to this process, each heard before the next: handlers are those of the watch that runs in it."""
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_what_is_in_hand(
    watching: Run, slowly: tuple[str, ...], number: signal.Signals
) -> None:
    def press() -> None:
        wait_for(Path("begun").exists)
        send(number)
        Path("go").touch()

    with meanwhile(press):
        ran = watching(*slowly)
    assert ran.code == 130
    assert "the checkpoint in hand is finished first" in ran.err
    assert "saddle/step-1.safetensors" in ran.out
    assert "step-2" not in ran.out
    assert finished() == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_signal_ends_at_once(watching: Run, slowly: tuple[str, ...]) -> None:
    def press() -> None:
        wait_for(Path("begun").exists)
        send(signal.SIGINT, signal.SIGTERM)

    with meanwhile(press):
        ran = watching(*slowly)
    assert (ran.code, ran.out, finished()) == (130, "", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_waits_ends_it_at_once(
    watching: Run, slowly: tuple[str, ...], number: signal.Signals
) -> None:
    def press() -> None:
        wait_for(lambda: finished() == 2)
        time.sleep(0.2)  # both are written; now it waits for more
        send(number)

    Path("go").touch()
    with meanwhile(press):
        ran = watching(*slowly)
    assert ran.code == 130
    assert "in hand" not in ran.err
    assert "interrupted; 1 " in ran.err


@pytest.mark.slow
def test_a_process_of_its_own_is_ended_by_sigterm_with_130(slowly: tuple[str, ...]) -> None:
    Path("go").touch()
    child = subprocess.Popen(
        [sys.executable, "-c", CALL, "watch", *slowly], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: finished() == 2)
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "step-2" in out
    assert "a line of the training" not in out, "stdout is the report's"
    assert "a line of the training" in err
