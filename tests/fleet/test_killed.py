"""A run over checkpoints that is killed, interrupted or out of room loses nothing that it had finished."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from samdiag.fleet.appending import RecordFile
from samdiag.records import read_records

from .checkpoints import write_checkpoint, write_run
from .killing import Ended, Runs

NOT_RESULTS = ("timings", "environment")
GONE = "step-5.safetensors"  # is no checkpoint: its failure is dropped and made again whenever the run is resumed


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as started:
        yield started


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def resumed(runs: Runs, folder: Path, names: list[str], **moment: Any) -> Ended:
    return runs(folder, "inspect", *names, "--resume", "out.jsonl", "-q", **moment)


def results(path: Path) -> dict[str, dict[str, Any]]:
    """What each line says of its checkpoint, without what differs from run to run; each is a whole record, once."""
    records = list(read_records(path))
    text = path.read_text("ascii")
    assert text.endswith("\n")
    documents = [json.loads(line) for line in text.splitlines()]
    assert len(records) == len(documents)
    names = [document["checkpoint"]["path"] for document in documents]
    assert not [name for name, count in collections.Counter(names).items() if count > 1]
    for document in documents:
        for name in NOT_RESULTS:
            del document[name]
        if document["measurements"] is not None:
            del document["measurements"]["engine"]
    return dict(zip(names, documents, strict=True))


def undisturbed(runs: Runs, folder: Path, names: list[str]) -> tuple[dict[str, dict[str, Any]], Ended]:
    ended = runs(folder, "inspect", *names, "--resume", "whole.jsonl", "-q")
    assert ended.code in {1, 3}, ended.err
    return results(folder / "whole.jsonl"), ended


def killed_until_complete(runs: Runs, folder: Path, names: list[str], rng: random.Random, kills: int) -> int:
    """Starts over and over, killing each run, until one comes to its end after so many kills; how many there were.

    One in three is killed as soon as the ledger grows, that is between a write and its fsync or right behind it; one
    in three while the ledger is rewritten; the others anywhere.
    """
    ledger = folder / "out.jsonl"
    killed = 0
    whole = 0.0
    while killed < kills:
        moment: dict[str, Any] = rng.choice(
            [{"after": rng.uniform(0.0, max(whole, 0.5))}, {"grown": "out.jsonl"}, {"there": ".out.jsonl.samdiag-tmp"}]
        )
        before = ledger.read_bytes() if ledger.exists() else b""
        ended = resumed(runs, folder, names, **moment)
        if ended.killed:
            killed += 1
            assert finished(before) <= finished(ledger.read_bytes() if ledger.exists() else b"")
        else:
            assert ended.code in {1, 3}, ended.err
            whole = ended.seconds
            results(ledger)
            ledger.unlink()  # and once more from the beginning
    return killed


def finished(content: bytes) -> set[bytes]:
    """The whole lines that are no failures."""
    return {line for line in content.split(b"\n")[:-1] if b'"failure": null' in line}


def check_kills(runs: Runs, folder: Path, count: int, kills: int) -> None:
    names = write_run(folder, count)
    (folder / GONE).write_bytes(b"no checkpoint")
    names.insert(0, GONE)
    expected, whole = undisturbed(runs, folder, names)
    assert len(expected) == count + 1
    assert killed_until_complete(runs, folder, names, random.Random(count), kills) >= kills
    last = resumed(runs, folder, names)
    assert last.code == whole.code, last.err
    assert results(folder / "out.jsonl") == expected
    assert [path.name for path in folder.iterdir() if path.name.endswith("tmp")] == []


def test_killed_five_times(runs: Runs, tmp_path: Path) -> None:
    check_kills(runs, tmp_path, 8, 5)


@pytest.mark.slow
def test_killed_a_hundred_times(runs: Runs, tmp_path: Path) -> None:
    check_kills(runs, tmp_path, 40, 100)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_killed_in_the_middle_of_a_line(runs: Runs, tmp_path: Path, ledger: Path, share: float) -> None:
    """What the disk then holds: a part of the last record."""
    names = write_run(tmp_path, 3)
    expected, _ = undisturbed(runs, tmp_path, names)
    first, second, _third = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    ledger.write_bytes(first + second[: int(share * len(second))])
    resumed(runs, tmp_path, names)
    assert results(ledger) == expected
    assert ledger.read_bytes().startswith(first)


def test_a_second_run_ends_at_once_and_a_killed_one_is_no_obstacle(runs: Runs, tmp_path: Path, ledger: Path) -> None:
    names = write_run(tmp_path, 2)
    with RecordFile(ledger):
        ended = resumed(runs, tmp_path, names)
        assert ended.code == 2
        assert f"process {os.getpid()} is writing to it" in ended.err
    assert resumed(runs, tmp_path, names, grown="out.jsonl").killed
    assert resumed(runs, tmp_path, names).code in {0, 1}
    assert len(results(ledger)) == 2


def test_one_ctrl_c_finishes_the_checkpoint_in_hand(runs: Runs, tmp_path: Path, ledger: Path) -> None:
    names = write_run(tmp_path, 30)
    ended = resumed(runs, tmp_path, names, grown="out.jsonl", signal=signal.SIGINT)
    assert ended.code == 130, ended.err
    assert ended.err.count("interrupted") == 2  # that it was heard, and how much was finished
    found = results(ledger)
    assert 1 <= len(found) < 30
    assert all(
        one["failure"] is None and one["measurements"]["solver"]["stopped"] != "interrupted" for one in found.values()
    )
    assert f"{len(found)} of 30" in ended.err
    assert resumed(runs, tmp_path, names).code in {0, 1}
    assert len(results(ledger)) == 30


def test_two_stop_at_once(runs: Runs, tmp_path: Path, ledger: Path) -> None:
    names = write_run(tmp_path, 30)
    ended = resumed(runs, tmp_path, names, grown="out.jsonl", signal=signal.SIGINT, twice=0.002)
    assert ended.code == 130, ended.err
    assert 1 <= len(results(ledger)) < 30
    assert resumed(runs, tmp_path, names).code in {0, 1}
    assert len(results(ledger)) == 30


def test_a_disk_that_fills_up(runs: Runs, tmp_path: Path, ledger: Path) -> None:
    """A limit on the file's size stands for it: the write that does not fit is a partial one, and then an error."""
    names = write_run(tmp_path, 4)
    expected, _ = undisturbed(runs, tmp_path, names)
    room = sum(map(len, (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)[:2])) + 3000
    ended = resumed(runs, tmp_path, names, file_size=room)
    assert ended.code == 3
    assert "could not be written to out.jsonl" in ended.err
    assert "Traceback" not in ended.err
    assert set(results(ledger)) == set(list(expected)[:2])
    resumed(runs, tmp_path, names)
    assert results(ledger) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk(runs: Runs, tmp_path: Path, small_disk: Path) -> None:
    names = write_run(tmp_path, 12)  # more than 64 KiB of records
    ended = runs(tmp_path, "inspect", *names, "--resume", "disk/out.jsonl", "-q")
    assert ended.code == 3
    assert "No space left on device" in ended.err
    some = results(small_disk / "out.jsonl")
    assert 1 <= len(some) < 12
    room = subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=False)
    assert room.returncode == 0
    assert runs(tmp_path, "inspect", *names, "--resume", "disk/out.jsonl", "-q").code in {0, 1}
    assert results(small_disk / "out.jsonl").items() >= some.items()
    assert len(results(small_disk / "out.jsonl")) == 12


def test_a_disk_that_is_read_only(runs: Runs, tmp_path: Path, small_disk: Path) -> None:
    names = write_run(tmp_path, 2)
    assert runs(tmp_path, "inspect", names[0], "--resume", "disk/out.jsonl", "-q").code in {0, 1}
    before = (small_disk / "out.jsonl").read_bytes()
    assert subprocess.run(["mount", "-o", "remount,ro", small_disk], check=False).returncode == 0
    for name in ("out.jsonl", "new.jsonl"):
        ended = runs(tmp_path, "inspect", *names, "--resume", f"disk/{name}", "-q")
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 2
        assert "Read-only file system" in ended.err
    assert (small_disk / "out.jsonl").read_bytes() == before


def test_a_checkpoint_that_vanishes_or_breaks_is_a_line_with_its_error(
    runs: Runs, tmp_path: Path, ledger: Path
) -> None:
    names = write_run(tmp_path, 3)
    (tmp_path / names[0]).unlink()
    whole = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(whole[:-5])
    ended = resumed(runs, tmp_path, names)
    assert ended.code == 3
    found = results(ledger)
    assert [found[name]["failure"] is None for name in names] == [False, False, True]
    write_checkpoint(tmp_path / names[0], 1)
    (tmp_path / names[1]).write_bytes(whole)
    assert resumed(runs, tmp_path, names).code in {0, 1}
    assert [one["failure"] for one in results(ledger).values()] == [None] * 3


def test_one_that_is_written_anew_is_diagnosed_anew(runs: Runs, tmp_path: Path, ledger: Path) -> None:
    names = write_run(tmp_path, 2)
    resumed(runs, tmp_path, names)
    write_checkpoint(tmp_path / names[0], 77)
    resumed(runs, tmp_path, names)
    paths = [json.loads(line)["checkpoint"]["path"] for line in ledger.read_text().splitlines()]
    assert paths == [names[0], names[1], names[0]]
