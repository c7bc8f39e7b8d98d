"""What only a process of its own shows: exit codes, imports, Ctrl-C, a closed pipe, and hostile folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import CALL, HONEST, Ran, interrupt, network, process

A = "runs/a.safetensors"
MODULE = ("-m", "samdiag")
HEAVY = ("torch", "numpy", "pydantic", "scipy", "safetensors", "pyhessian")
IMPORTED = (
    "import sys\nfrom samdiag.cli.app import main\ntry:\n    main()\nfinally:\n"
    f"    print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("inspect", "--help"), ("demo", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ran = process(*arguments, python=("-c", IMPORTED), cwd=tmp_path)
    assert ran.code == 0
    assert ran.out
    found = ran.err.splitlines()[-1]
    assert found == "HEAVY []" or (len(arguments) == 2 and found == "HEAVY ['pydantic']")  # newer typer itself does


@pytest.mark.parametrize("arguments", [("--explain",), ("--rho", "0"), ("--fail-on", "x")])
def test_what_measures_nothing_does_not_import_torch(arguments: tuple[str, ...], work: Path) -> None:
    ran = process("inspect", A, "--problem", "problems.py:problem", *arguments, python=("-c", IMPORTED))
    assert ran.code in {0, 2}
    assert "'torch'" not in ran.err.splitlines()[-1]


def test_version(tmp_path: Path) -> None:
    from samdiag import __version__

    ran = process("--version", python=MODULE, cwd=tmp_path)
    assert (ran.code, ran.out, ran.err) == (0, f"samdiag {__version__}\n", "")


def test_module_and_code_of_a_finding(work: Path) -> None:
    """A whole run as `python -m samdiag`; code 0 is seen from the installed command below."""
    ran = process("inspect", A, *HONEST, "--fail-on", "descending", "--format", "json", python=MODULE)
    assert ran.code == 1
    assert ran.report["verdict"] == "descending"
    assert ran.err == "a line of the training script's own\n"


@pytest.mark.parametrize(("name", "code"), [("gone.pt", 2), ("problems.py", 3)])
def test_codes_of_failures(name: str, code: int, work: Path) -> None:
    ran = process("inspect", name, *HONEST)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("samdiag: ")
    assert len(ran.err.splitlines()) == 2


def test_progress_on_a_terminal_only_there(work: Path) -> None:
    """stderr is a terminal, stdout is not: progress on the one, a plain report on the other."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, *MODULE, "inspect", A, *HONEST],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        text=True,
    )
    os.close(theirs)
    shown = b""
    while part := read(ours):
        shown += part
    out, _ = child.communicate(timeout=60)
    os.close(ours)
    assert child.returncode == 0
    assert any(stage in shown for stage in (b"reading the data", b"self-check", b"mini-batches", b"spectrum"))
    assert "STILL DESCENDING" in out.splitlines()[0]
    assert "\x1b" not in out


def read(terminal: int) -> bytes:
    """What the other side wrote; nothing once it is closed."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


# ---------------------------------------------------------------- Ctrl-C


def test_ctrl_c_keeps_what_was_finished(work: Path) -> None:
    slow = network()
    torch.nn.init.constant_(slow[2].bias, 1000.0)
    save_file(slow.state_dict(), "runs/b.safetensors")
    shutil.copy(A, "runs/c.safetensors")
    command = [sys.executable, "-c", CALL, "inspect", "runs", "--rho", "0.1"]
    child = subprocess.Popen(
        [*command, "--problem", "problems.py:second_is_slow", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(work / "began", child)
        interrupt(child)  # asks for the end after the one in hand
        assert child.stderr is not None
        assert "the checkpoint in hand is finished first" in child.stderr.readline()
        interrupt(child)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert json.loads(out)["failure"] is None  # the first report, and it is whole
    assert "interrupted; 1 of 3 checkpoint(s) finished" in err
    assert "Traceback" not in err


def wait_for(path: Path, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert child.poll() is None, "the run ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---------------------------------------------------------------- pipes and disks


def into(reader: str, *arguments: str) -> Ran:
    """`samdiag … | reader`, with the code and the stderr of samdiag itself."""
    errors = Path("errors.txt")
    with errors.open("w") as err:
        writer = subprocess.Popen([sys.executable, *MODULE, *arguments], stdout=subprocess.PIPE, stderr=err)
        done = subprocess.run(reader, shell=True, stdin=writer.stdout, capture_output=True, text=True, check=False)
        assert writer.stdout is not None
        writer.stdout.close()
        writer.wait(timeout=60)
    return Ran(code=writer.returncode, out=done.stdout, err=errors.read_text())


def test_a_reader_that_leaves_early(work: Path) -> None:
    """`| head -1` of three reports: no traceback, and no success or finding that nobody saw."""
    for name in "bc":
        shutil.copy(A, f"runs/{name}.safetensors")
    ran = into("head -1", "inspect", "runs", *HONEST, "--format", "json")
    assert ran.report["failure"] is None
    assert "Traceback" not in ran.err
    assert "BrokenPipe" not in ran.err


@pytest.mark.parametrize("arguments", [("inspect", A, *HONEST, "--explain"), ("--help",)])
def test_a_reader_that_never_reads(arguments: tuple[str, ...], work: Path) -> None:
    ran = into("true", *arguments)
    assert "Traceback" not in ran.err
    assert "BrokenPipe" not in ran.err


def test_a_closed_pipe_is_no_finding(work: Path) -> None:
    assert into("true", "schema").code != 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout(work: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *MODULE, "inspect", A, *HONEST, "--explain"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    assert done.returncode not in {0, 1}


# ---------------------------------------------------------------- what lies beside a checkpoint


@pytest.fixture
def hostile(work: Path) -> Path:
    """A folder with a checkpoint and modules that shadow the ones samdiag imports; the problem lies elsewhere."""
    folder = work / "download"
    folder.mkdir()
    for name in ("torch", "random", "numpy", "typer", "tomllib", "safetensors"):
        (folder / f"{name}.py").write_text(f"open({str(work / 'pwned')!r}, 'a').write({name!r} + ' ')\n")
    (folder / "a.safetensors").write_bytes((work / A).read_bytes())
    (folder / ".git").mkdir()
    return folder


def command(work: Path) -> tuple[str, ...]:
    return ("inspect", "a.safetensors", "--rho", "0.1", "--problem", f"{work / 'problems.py'}:problem")


def test_the_installed_command_imports_nothing_beside_a_checkpoint(hostile: Path, work: Path) -> None:
    script = Path(sys.executable).with_name("samdiag")
    if not script.exists():
        pytest.skip("samdiag is not installed as a command here")
    done = subprocess.run(
        [script, *command(work)], cwd=hostile, capture_output=True, text=True, check=False, timeout=60
    )
    assert not (work / "pwned").exists()
    assert done.returncode == 0, done.stderr


def test_python_m_imports_nothing_beside_a_checkpoint(hostile: Path, work: Path) -> None:
    ran = process(*command(work), python=MODULE, cwd=hostile)
    assert not (work / "pwned").exists(), (work / "pwned").read_text()
    assert ran.code == 0


def test_python_P_m_imports_nothing_beside_a_checkpoint(hostile: Path, work: Path) -> None:
    """The way to run the module safely: python -P leaves the working directory out."""
    ran = process(*command(work), python=("-P", *MODULE), cwd=hostile, env={**os.environ})
    assert not (work / "pwned").exists()
    assert ran.code == 0, ran.err


# ---------------------------------------------------------------- ended from outside


def test_sigterm_ends_a_list_with_its_reports(work: Path) -> None:
    slow = network()
    torch.nn.init.constant_(slow[2].bias, 1000.0)
    save_file(slow.state_dict(), "runs/b.safetensors")
    command = [sys.executable, "-c", CALL, "inspect", "runs", "--rho", "0.1", "--report", "junit=out.xml", "--resume"]
    child = subprocess.Popen(
        [*command, "all.jsonl", "--problem", "problems.py:second_is_slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(work / "began", child)
        child.terminate()
        _, err = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert "interrupted; 1 of 2 checkpoint(s) finished" in err
    assert Path("out.xml").read_text().count("<testcase") == 2  # the other one is an error
    assert len(Path("all.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), ("<&-", 0)])
def test_streams_that_the_caller_has_closed(closed: str, code: int, work: Path) -> None:
    line = f'"{sys.executable}" -m samdiag inspect {A} {" ".join(HONEST)} {closed}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
