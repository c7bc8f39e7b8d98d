"""Records of a fleet for tests of what is done with them; nothing is measured."""

from __future__ import annotations

import dataclasses
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samdiag.instruments import SolverRun
from samdiag.preparing import Identity
from samdiag.reports import json_lines
from samdiag.types import CheckpointInfo, Diagnosis

from ..reports import samples

VERSION = "0.1.0"


def identity(content: str = "a", request: str = "rho 0.1") -> Identity:
    return Identity(fingerprint=f"sha256:{content}", request=f"sha256:{request}")


def record(
    path: str = "a.pt", content: str = "a", request: str = "rho 0.1", *, step: int | None = None, **changes: Any
) -> Diagnosis:
    """A finished diagnosis."""
    info = CheckpointInfo(path=path, format="torch-zip", fingerprint=f"sha256:{content}", num_params=10, step=step)
    return dataclasses.replace(
        samples.diagnosis("minimum"),
        checkpoint=info,
        request=f"sha256:{request}",
        **{"samdiag_version": VERSION} | changes,
    )


def failure(path: str = "a.pt", content: str = "a", request: str = "rho 0.1", **changes: Any) -> Diagnosis:
    """A failure after the checkpoint was opened."""
    return dataclasses.replace(
        samples.failed(),
        checkpoint=CheckpointInfo(path=path, format="torch-zip", fingerprint=f"sha256:{content}"),
        request=f"sha256:{request}",
        **{"samdiag_version": VERSION} | changes,
    )


def unopened(path: str = "a.pt") -> Diagnosis:
    """A failure of which nothing but the path is known."""
    return dataclasses.replace(
        samples.failed(), checkpoint=CheckpointInfo(path=path), request="", samdiag_version=VERSION
    )


def cut_short(path: str = "a.pt", content: str = "a", request: str = "rho 0.1") -> Diagnosis:
    """What the first Ctrl-C leaves of a spectrum."""
    measured = samples.measurements(solver=SolverRun(stopped="interrupted", steps=7))
    return record(path, content, request, measurements=measured)


def lines(*diagnoses: Diagnosis) -> bytes:
    return b"".join(json_lines.render(one).encode("ascii") + b"\n" for one in diagnoses)


def write(path: Path, *diagnoses: Diagnosis, behind: bytes = b"") -> Path:
    path.write_bytes(lines(*diagnoses) + behind)
    return path


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Inside, no file grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
