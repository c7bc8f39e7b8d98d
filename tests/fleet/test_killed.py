"""A run over checkpoints that is killed, interrupted or out of room loses nothing that it had finished."""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from samdiag.fleet.appending import RecordFile
from samdiag.records import read_records

from .checkpoints import STAMP, write_checkpoint, write_run
from .killing import Ended, Runs

NOT_RESULTS = ("timings", "environment")
COUNT = 5
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


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A run that nothing disturbed.

    Attributes:
        folder: of its checkpoints.
        names: of the checkpoints; the first one is none.
        lines: of its ledger.
        results: what they say.
        code: its exit code.
    """

    folder: Path
    names: list[str]
    lines: list[bytes]
    results: dict[str, dict[str, Any]]
    code: int


def undisturbed(runs: Runs, folder: Path, count: int) -> Whole:
    names = write_run(folder, count)
    (folder / GONE).write_bytes(b"no checkpoint")
    names.insert(0, GONE)
    ended = resumed(runs, folder, names)
    assert ended.code in {1, 3}, ended.err
    ledger = folder / "out.jsonl"
    found, lines = results(ledger), ledger.read_bytes().splitlines(keepends=True)
    assert list(found) == names
    ledger.unlink()
    return Whole(folder=folder, names=names, lines=lines, results=found, code=ended.code)


@pytest.fixture(scope="module")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return undisturbed(runs, tmp_path_factory.mktemp("whole"), COUNT)


@pytest.fixture
def names(whole: Whole, tmp_path: Path) -> list[str]:
    """Its checkpoints in a folder of this test's own."""
    for name in whole.names:
        shutil.copy(whole.folder / name, tmp_path / name)
    return whole.names


def kill(runs: Runs, folder: Path, names: list[str], rng: random.Random, kills: int) -> None:
    """Starts over and over, until so many runs were killed; nothing that was finished goes missing.

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


def finished(content: bytes) -> set[bytes]:
    """The whole lines that are no failures."""
    return {line for line in content.split(b"\n")[:-1] if b'"failure": null' in line}


def check_kills(runs: Runs, folder: Path, whole: Whole, kills: int) -> None:
    kill(runs, folder, whole.names if kills > 50 else whole.names[:3], random.Random(kills), kills)
    last = resumed(runs, folder, whole.names)
    assert last.code == whole.code, last.err
    assert results(folder / "out.jsonl") == whole.results
    assert [path.name for path in folder.iterdir() if path.name.endswith("tmp")] == []


@pytest.mark.usefixtures("names")
def test_killed_five_times(runs: Runs, tmp_path: Path, whole: Whole) -> None:
    check_kills(runs, tmp_path, whole, 5)


@pytest.mark.slow
def test_killed_a_hundred_times(runs: Runs, tmp_path: Path) -> None:
    check_kills(runs, tmp_path, undisturbed(runs, tmp_path, 40), 100)


@pytest.mark.slow
def test_killed_with_workers(runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, names: list[str]) -> None:
    """Those who are left behind hold no lock, and what they were at is made again."""
    for _ in range(3):
        before = finished(ledger.read_bytes()) if ledger.exists() else set()
        if not resumed(runs, tmp_path, [*names, "--workers", "2"], grown="out.jsonl").killed:
            break
        assert before <= finished(ledger.read_bytes())
    assert resumed(runs, tmp_path, [*names, "--workers", "2"]).code == whole.code
    assert results(ledger) == whole.results


@pytest.mark.parametrize("share", [0.02, 0.999])
def test_killed_in_the_middle_of_a_line(
    runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, names: list[str], share: float
) -> None:
    """What the disk then holds: a part of the last record."""
    *before, torn = whole.lines
    ledger.write_bytes(b"".join(before) + torn[: int(share * len(torn))])
    assert resumed(runs, tmp_path, names).code == whole.code
    assert results(ledger) == whole.results
    assert set(before[1:]) <= set(ledger.read_bytes().splitlines(keepends=True))


def test_a_second_run_ends_at_once_and_a_killed_one_is_no_obstacle(
    runs: Runs, tmp_path: Path, ledger: Path, names: list[str]
) -> None:
    with RecordFile(ledger):
        ended = resumed(runs, tmp_path, names)
        assert ended.code == 2
        assert f"process {os.getpid()} is writing to it" in ended.err
    assert resumed(runs, tmp_path, names, grown="out.jsonl").killed
    assert resumed(runs, tmp_path, names[1:3]).code in {0, 1}


def test_one_ctrl_c_finishes_the_checkpoint_in_hand(
    runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, names: list[str]
) -> None:
    ended = resumed(runs, tmp_path, names[1:], grown="out.jsonl", signal=signal.SIGINT)
    assert ended.code == 130, ended.err
    assert ended.err.count("interrupted") == 2  # that it was heard, and how much was finished
    found = results(ledger)
    assert 1 <= len(found) < COUNT
    assert found.items() <= whole.results.items()
    assert f"{len(found)} of {COUNT}" in ended.err


def test_two_stop_at_once(runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, names: list[str]) -> None:
    ended = resumed(runs, tmp_path, names[1:], grown="out.jsonl", signal=signal.SIGINT, twice=0.002)
    assert ended.code == 130, ended.err
    assert 1 <= len(results(ledger)) < COUNT
    assert resumed(runs, tmp_path, names).code == whole.code
    assert results(ledger) == whole.results


def test_a_disk_that_fills_up(runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, names: list[str]) -> None:
    """A limit on the file's size stands for it: the write that does not fit is a partial one, and then an error."""
    room = sum(map(len, whole.lines[1:3])) + 3000
    ended = resumed(runs, tmp_path, names[1:], file_size=room)
    assert ended.code == 3
    assert "could not be written to out.jsonl" in ended.err
    assert "Traceback" not in ended.err
    assert list(results(ledger)) == names[1:3]
    assert resumed(runs, tmp_path, names).code == whole.code
    assert results(ledger) == whole.results


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
def test_a_full_disk(runs: Runs, tmp_path: Path, small_disk: Path, whole: Whole, names: list[str]) -> None:
    arguments = ("inspect", *names, "--resume", "disk/out.jsonl", "-q")
    ended = runs(tmp_path, *arguments)
    assert ended.code == 3
    assert "No space left on device" in ended.err
    some = results(small_disk / "out.jsonl")
    assert 2 <= len(some) <= COUNT
    assert some.items() <= whole.results.items()
    assert subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=False).returncode == 0
    assert runs(tmp_path, *arguments).code == whole.code
    assert results(small_disk / "out.jsonl") == whole.results


def test_a_disk_that_is_read_only(runs: Runs, tmp_path: Path, small_disk: Path, whole: Whole, names: list[str]) -> None:
    (small_disk / "out.jsonl").write_bytes(b"".join(whole.lines[:2]))
    assert subprocess.run(["mount", "-o", "remount,ro", small_disk], check=False).returncode == 0
    for name in ("out.jsonl", "new.jsonl"):
        ended = runs(tmp_path, "inspect", *names, "--resume", f"disk/{name}", "-q")
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 2
        assert "Read-only file system" in ended.err
    assert (small_disk / "out.jsonl").read_bytes() == b"".join(whole.lines[:2])


def test_a_checkpoint_that_vanishes_or_breaks_is_a_line_with_its_error(
    runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, names: list[str]
) -> None:
    (tmp_path / names[1]).unlink()
    content = (tmp_path / names[2]).read_bytes()
    (tmp_path / names[2]).write_bytes(content[:-5])
    assert resumed(runs, tmp_path, names[1:4]).code == 3
    found = results(ledger)
    assert [found[name]["failure"] is None for name in names[1:4]] == [False, False, True]
    shutil.copy(whole.folder / names[1], tmp_path)
    (tmp_path / names[2]).write_bytes(content)
    assert resumed(runs, tmp_path, names).code == whole.code
    assert results(ledger) == whole.results


def test_one_that_is_written_anew_is_diagnosed_anew(
    runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, names: list[str]
) -> None:
    ledger.write_bytes(b"".join(whole.lines[1:3]))
    write_checkpoint(tmp_path / names[1], 77)
    assert resumed(runs, tmp_path, names[1:3]).code in {0, 1}
    paths = [json.loads(line)["checkpoint"]["path"] for line in ledger.read_text().splitlines()]
    assert paths == [names[1], names[2], names[1]]


@pytest.mark.parametrize("flag", ["--output", "--resume"])
def test_no_checkpoint_is_written_over(runs: Runs, tmp_path: Path, names: list[str], flag: str) -> None:
    before = (tmp_path / names[1]).read_bytes()
    ended = runs(tmp_path, "inspect", *names, flag, names[1], "--format", "json")
    assert (ended.code, len(ended.err.splitlines())) == (2, 2), ended.err
    assert (tmp_path / names[1]).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_checkpoints_that_are_written_over_while_they_are_read(
    runs: Runs, tmp_path: Path, ledger: Path, whole: Whole, suffix: str
) -> None:
    """Each record is of one of the contents, numbers and all, or says what was wrong with the file just then.

    The contents differ in size: within one tick of the file system's clock nothing else tells them apart.
    """
    contents = write_sized(tmp_path, whole, suffix)
    expected = numbers_of(runs, tmp_path, list(contents))
    names = [f"step-{i}.{suffix}" for i in range(COUNT)]
    over = threading.Event()

    def disturb() -> None:
        for content in itertools.cycle(contents.values()):
            for name in names:  # as a training that writes into the same file does: empty, then part by part
                with (tmp_path / name).open("wb", buffering=0) as file:
                    file.write(content[:50])
                    file.write(content[50:])
                if over.wait(0.002):
                    return

    found: list[dict[str, Any]] = []
    writer = threading.Thread(target=disturb)
    writer.start()
    try:
        for _ in range(20):
            ended = resumed(runs, tmp_path, names)
            assert ended.code in {0, 1, 3}, (ended.code, ended.err)
            found += [json.loads(line) for line in ledger.read_text().splitlines()]
            ledger.unlink()
    finally:
        over.set()
        writer.join()
    assert len(found) == 20 * COUNT
    good = [one for one in found if one["failure"] is None]
    bad = [one["failure"] for one in found if one["failure"]]
    assert good and bad, "everything was disturbed, or nothing"  # noqa: PT018
    assert {failure["exit_code"] for failure in bad} == {3}, bad
    assert not [failure for failure in bad if "internal error" in failure["what"]]
    for one in good:
        assert one["measurements"]["lambda_max"] == expected[one["checkpoint"]["fingerprint"]]


def write_sized(folder: Path, whole: Whole, suffix: str) -> dict[str, bytes]:
    """Two checkpoints by name, whose files are of different sizes, and the folder's samdiag.toml."""
    import tomli_w
    import torch
    from safetensors.torch import load_file, save_file

    (folder / "samdiag.toml").write_text(tomli_w.dumps(STAMP))
    contents = {}
    for i, name in enumerate(whole.names[1:3]):
        path = folder / f"sized-{i}.{suffix}"
        weights = {"w": load_file(whole.folder / name)["w"]}
        if suffix == "pt":
            torch.save({"state_dict": weights, "note": "x" * 1000 * i}, path)
        else:
            save_file(weights, path, metadata={"note": "x" * 1000 * i})
        contents[path.name] = path.read_bytes()
    return contents


def numbers_of(runs: Runs, folder: Path, names: list[str]) -> dict[str, Any]:
    """The largest eigenvalue by fingerprint."""
    ended = runs(folder, "inspect", *names, "--resume", "sized.jsonl", "-qq")
    assert ended.code in {0, 1}, ended.err
    found = results(folder / "sized.jsonl").values()
    return {one["checkpoint"]["fingerprint"]: one["measurements"]["lambda_max"] for one in found}
