"""The user's command: told by JSON alone, started without a shell, ended when it takes too long."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from samdiag.errors import UsageError
from samdiag.fleet.finding_command import FindingCommand, describe, parse_command
from samdiag.outcomes import Hit, HitKind, Outcome
from samdiag.types import CheckpointInfo, Diagnosis, Severity

HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned;",
    "| touch pwned",
    "a' && touch pwned '",
    '"\n touch pwned',
)


def python(code: str, *arguments: str, limit: float = 20.0) -> FindingCommand:
    return parse_command(shlex.join([sys.executable, "-c", code, *arguments]), limit)


def told(path: str) -> dict[str, Any]:
    diagnosis = Diagnosis(
        checkpoint=CheckpointInfo(path=path, fingerprint="sha256:1"),
        settings={},
        measurements=None,
        verdict="bounce",
        findings=(),
        prescription=None,
        timings={"measure": float("inf")},
    )
    hit = Hit(kind=HitKind.FINDING, name="bounce", severity=Severity.WARNING, message=f"at {path}")
    return describe(Outcome(diagnosis=diagnosis, exit_code=1, hits=(hit,)), [hit])


WRITE = "import sys, json; json.dump([sys.argv[1:], json.load(sys.stdin)], open('got.json', 'w'))"


@pytest.mark.parametrize("name", [*HOSTILE, "\udcff\x1b[2J", "$HOME", "-rf", "%s{0}"])
def test_a_hostile_name_arrives_as_data_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert python(WRITE, "fixed $HOME", "*").run(told(f"run/{name}.pt")) is None
    arguments, document = json.loads((tmp_path / "got.json").read_text())
    assert arguments == ["fixed $HOME", "*"], "no shell has seen them"
    assert document["checkpoint"] == document["record"]["checkpoint"]["path"] == f"run/{name}.pt"
    assert document["hits"] == [
        {"kind": "finding", "name": "bounce", "severity": "warning", "message": f"at run/{name}.pt"}
    ]
    assert os.listdir(tmp_path) == ["got.json"]


def test_the_environment_is_that_of_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "import json, os; json.dump(dict(os.environ), open('env.json', 'w'))"
    assert python(code).run(told("a.pt")) is None
    added = set(json.loads((tmp_path / "env.json").read_text()).items()) - set(os.environ.items())
    assert {name for name, _ in added} <= {"LC_CTYPE"}  # Python's own, where the locale is C


def test_it_is_one_line_of_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python("import sys; open('got', 'wb').write(sys.stdin.buffer.read())").run(told("é\n\u2028.pt"))
    data = (tmp_path / "got").read_bytes()
    assert data.isascii()
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")


def test_its_output_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert python("import sys; print('out'); print('err', file=sys.stderr)").run(told("a.pt")) is None
    captured = capfd.readouterr()
    assert captured.out == ""
    assert sorted(captured.err.split()) == ["err", "out"]


def test_what_goes_wrong_is_returned(tmp_path: Path) -> None:
    assert python("raise SystemExit(7)").run(told("a.pt")) == "ended with exit code 7"
    assert python("import os; os.abort()").run(told("a.pt")) == "was ended by signal 6"
    gone = FindingCommand(argv=(str(tmp_path / "gone"),), limit=1.0)
    assert gone.run(told("a.pt")) == "cannot be started: No such file or directory"


def test_a_command_that_reads_nothing_is_no_failure() -> None:
    assert python("pass").run({"much": "x" * 1_000_000}) is None


def test_one_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import subprocess, sys, time; child = subprocess.Popen(['sleep', '60']); "
        "open('pid', 'w').write(str(child.pid)); time.sleep(60)"
    )
    assert python(code, limit=1.0).run(told("a.pt")) == "took longer than 1 s and was ended"
    assert has_ended(int((tmp_path / "pid").read_text()))


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or will be in a moment: nobody here waits for a grandchild."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "--on-finding is empty"),
        ("mail 'me", '--on-finding "mail \'me": no closing quotation'),
        ("no-such-program --now", "--on-finding: there is no program 'no-such-program'"),
    ],
)
def test_a_command_that_cannot_be_is_a_mistake(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_command(text, 1.0)
    assert caught.value.what == what
    assert caught.value.todo
