"""A Session in another process: the same answers, and what kills it is survived."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from samdiag.errors import CannotDecide, SamdiagError
from samdiag.fleet.apart import Apart
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.session import Session
from samdiag.types import Diagnosis

TRAP = """
import mmap, os, pathlib
import torch
from torch import nn
import samdiag

class Vector(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(100_000))

def loss(model, batch):
    if pathlib.Path("cut").exists():  # a mapped file is cut short, as by a training script that writes over it
        with open("a.pt", "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
            os.truncate("a.pt", 0)
            mapped[0]
    return (model.w ** 2).sum()

def problem():
    print("to stdout")
    return samdiag.Problem(model=Vector(), loss=loss, batches=[torch.zeros(1)], population=1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart")
    folder.chmod(0o755)
    (folder / ".git").mkdir()
    (folder / "trap.py").write_text(TRAP)
    return folder


@pytest.fixture(scope="module")
def asked(folder: Path) -> Asked:
    overrides = {"problem": "trap.py:problem", "sam.rho": 0.1, "measure.max_products": 20, "measure.device": "cpu"}
    return Asked(overrides=overrides, cwd=folder)


@pytest.fixture(scope="module")
def apart(asked: Asked, folder: Path) -> Iterator[Apart]:
    """One process for all tests here: that it is replaced when it dies is part of what they say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")  # as here: another number may change the last bits of sums
        with Apart(asked) as apart:
            yield apart


@pytest.fixture(autouse=True)
def whole(folder: Path) -> None:
    torch.save({"w": torch.ones(100_000)}, folder / "a.pt")
    (folder / "cut").unlink(missing_ok=True)


def without_time(diagnosis: Diagnosis) -> dict[str, object]:
    found = diagnosis.to_dict()
    found.pop("timings")
    if found["measurements"]:
        found["measurements"].pop("engine")
    return found


A = Entry(path="a.pt")


def test_the_answers_are_those_of_a_session(apart: Apart, asked: Asked) -> None:
    torch.set_num_threads(1)
    with Session(asked) as session:
        identity, diagnosis = session.identify(A), session.inspect(A)
    stages: list[str] = []
    assert apart.identify(A) == identity
    found = apart.inspect(A, progress=lambda what, _: stages.append(what))
    assert found.failure is None
    assert without_time(found) == without_time(diagnosis)
    assert stages


def test_what_cannot_be_opened_is_an_error_as_ever(apart: Apart) -> None:
    gone = Entry(path="gone.safetensors")
    with pytest.raises(SamdiagError, match=r"gone\.safetensors does not exist"):
        apart.identify(gone)
    assert apart.inspect(gone).failure is not None


def test_a_file_cut_short_while_it_is_read_costs_one_record(apart: Apart, folder: Path) -> None:
    (folder / "cut").touch()
    found = apart.inspect(A)
    assert found.failure is not None
    assert "was killed by SIGBUS" in found.failure.what
    assert found.failure.exit_code == 3
    assert found.checkpoint is not None
    assert found.checkpoint.path == "a.pt"
    (folder / "cut").unlink()
    torch.save({"w": torch.ones(100_000)}, folder / "a.pt")
    assert apart.inspect(A).failure is None, "by a new process"


def test_it_hears_no_signals(apart: Apart) -> None:
    apart.identify(A)  # it has begun
    assert apart._process is not None
    assert apart._process.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(apart._process.pid, number)
    pid = apart._process.pid
    assert apart.inspect(A).failure is None
    assert apart._process.pid == pid


def test_one_that_cannot_begin_ends_the_watch(asked: Asked) -> None:
    with Apart(replace(asked, overrides={"sam.rho": Unloadable()})) as apart, pytest.raises(CannotDecide) as caught:
        apart.inspect(A)
    assert caught.value.what == "the process that makes the diagnoses ended with exit code 1 before it could begin"


class Unloadable:
    """What cannot be unpickled in the other process."""

    def __reduce__(self) -> tuple[object, ...]:
        return (int, ("no number",))


def test_it_is_gone_with_its_context(asked: Asked) -> None:
    with Apart(asked) as apart:
        process = apart._process
        assert process is not None
        assert process.is_alive()
    assert not process.is_alive()
