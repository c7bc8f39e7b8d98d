"""Runs of the command line that can be killed by the dozen: one process imports torch, and forks for each run.

As a program: reads a JSON object per line from stdin (`argv`, `cwd`, `err` and one of the moments below), forks a child
that is the command, kills it at that moment, and answers with how it ended.

    {"after": 0.3, "signal": 9}       seconds after its start
    {"grown": "out.jsonl"}            as soon as that file is longer than it was
    {"there": ".out.jsonl.tmp"}       as soon as that file exists
    {"twice": 0.05}                   and the same signal once more, so many seconds later
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

OFTEN = 0.0002  # seconds between two looks at a file: less than an fsync takes
LONGEST = 120.0  # seconds after which a run counts as hanging


class Runs:
    """The program below, and questions to it. Use as a context."""

    def __enter__(self) -> Runs:
        here = Path(__file__).resolve()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here.parents[2])}
        for name in list(environment):
            if name.startswith("SAMDIAG_"):
                del environment[name]
        self._server = subprocess.Popen(
            [sys.executable, here], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()

    def __call__(self, folder: Path, *argv: str, **moment: Any) -> Ended:
        """`samdiag argv…` in `folder`, killed at a moment if one is given."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        asked = {"argv": argv, "cwd": str(folder), "err": str(folder / "stderr.txt"), **moment}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        return Ended(err=(folder / "stderr.txt").read_text(errors="replace"), **answer)


class Ended:
    """How a run ended: its exit code, or the negative number of the signal that killed it."""

    def __init__(self, *, code: int, seconds: float, err: str) -> None:
        self.code = code
        self.seconds = seconds
        self.err = err

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def _child(asked: dict[str, Any]) -> None:
    """Is the command, with its streams elsewhere; never returns."""
    os.chdir(asked["cwd"])
    for target, name in ((0, os.devnull), (1, os.devnull), (2, asked["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), target)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["samdiag", *asked["argv"]]
    if "file_size" in asked:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["file_size"], resource.RLIM_INFINITY))
    code = 70
    try:
        from samdiag.cli.app import main

        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _moment(asked: dict[str, Any], start: float) -> Callable[[], bool]:
    """Whether it has come."""
    if "after" in asked:
        return lambda: time.monotonic() - start >= asked["after"]
    if "grown" in asked:
        path = os.path.join(asked["cwd"], asked["grown"])
        before = _size(path)
        return lambda: _size(path) > before
    if "there" in asked:
        path = os.path.join(asked["cwd"], asked["there"])
        return lambda: os.path.exists(path)
    return lambda: False


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _run(asked: dict[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    has_come = _moment(asked, start)
    number = asked.get("signal", signal.SIGKILL)
    pid = os.fork()
    if pid == 0:
        _child(asked)
    sent = 0
    again = float("inf")
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        now = time.monotonic()
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "seconds": now - start}
        if (sent == 0 and has_come()) or (sent == 1 and now >= again):
            os.kill(pid, number)
            sent += 1
            again = now + asked["twice"] if "twice" in asked and sent == 1 else float("inf")
        if now - start > LONGEST:
            os.kill(pid, signal.SIGKILL)
        time.sleep(OFTEN)


def serve() -> None:
    import importlib
    import pkgutil

    import torch

    import samdiag

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(samdiag.__path__, "samdiag."):
        with contextlib.suppress(ImportError):  # of an extra that is not installed
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
