"""What a process must not do while it looks at a hostile file, seen through Python's audit events."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

RUNS = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork", "os.forkpty", "pty.spawn"),
    *("subprocess.Popen", "webbrowser.open", "os.kill", "os.putenv.LD_PRELOAD"),
    "pickle.find_class",  # the stock unpickler was asked for a name: nothing here may use it
}
NETWORK = (
    *("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "socket.bind"),
    *("urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect", "telnetlib.Telnet.open"),
)
OUT_OF_REACH = "/outside/"  # the folder of `Ground.outside`
LOCAL_FAMILY = 1  # AF_UNIX never leaves the machine
MAX_SECONDS = 60  # a hang, not a speed: the slowest attack takes some seconds on a loaded machine
MAX_MEMORY = 1 << 30  # bytes above what the process had; the bombs unpack to ten times that

_installed = False
_events: list[str] | None = None


class Forbidden(RuntimeError):
    """Raised in place of what was about to happen."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is None:
        return
    if event == "open":
        if isinstance(arguments[0], (str, bytes)) and OUT_OF_REACH in os.fsdecode(arguments[0]):
            _events.append(f"opened {arguments[0]!r}")
        return
    if event in RUNS or event.startswith(NETWORK):
        if event.startswith("socket") and _is_local(event, arguments):
            return
        _events.append(f"{event}{arguments!r}"[:300])
        raise Forbidden(event)


def _is_local(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "socket.__new__":
        return int(arguments[1]) == LOCAL_FAMILY
    return event in {"socket.connect", "socket.bind"} and isinstance(arguments[1], (str, bytes))


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """A context in which programs, connections and the stock unpickler are recorded and stopped; what was recorded.

    A file in the folder that is out of reach counts as well when it is opened.
    """
    global _installed, _events  # noqa: PLW0603
    if not _installed:
        sys.addaudithook(_hook)  # stays for the life of the process, asleep outside this context
        _installed = True
    _events = []
    try:
        yield _events
    finally:
        _events = None


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """A context that fails when it takes more than a minute, or a gigabyte more than there was."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"hangs: more than {MAX_SECONDS} s")  # no Exception: what catches those must not catch this

    before = _reset_peak()
    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    grown = _memory("VmHWM") - before
    assert grown < MAX_MEMORY, f"took {grown} bytes of memory"


def _reset_peak() -> int:
    """Bytes in use now, from which the peak is counted anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
    return 0  # not Linux: no bound is checked
