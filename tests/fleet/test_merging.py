"""The union of results: nothing lost, nothing twice, and no gate that passes because of a merge."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from samdiag.errors import CannotDecide, UsageError
from samdiag.fleet.merging import merging
from samdiag.instruments import ProductEngine
from samdiag.types import Diagnosis, Setting, Trust

from ..reports.samples import diagnosis, est, measurements
from .records import cut_short, failure, lines, record, unopened, write


def merged(*paths: Path) -> tuple[bytes, tuple[str, ...]]:
    with merging(paths) as union:
        return b"".join(text + b"\n" for text in union.texts()), union.notes


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"shard-{i}.jsonl" for i in range(3)]


def seeded(seed: int, one: Diagnosis) -> Diagnosis:
    setting = Setting(value=seed, source="command line", trust=Trust.CLI)
    return dataclasses.replace(one, settings={**one.settings, "measure.seed": setting})


def test_in_the_order_of_a_list_whatever_the_files(files: list[Path]) -> None:
    ordered = [
        record("run2/step-3.pt", "a", step=3),
        seeded(0, record("run2/step-20.pt", "b", "seed 0", step=20)),
        seeded(1, record("run2/step-20.pt", "b", "seed 1", step=20)),
        unopened("run2/a2.pt"),
        record("run2/a10.pt", "c"),
        record("run10/step-1.pt", "d", step=1),
    ]
    mixed = random.Random(1).sample(ordered, len(ordered))
    for i, path in enumerate(files):
        write(path, *mixed[i::3])
    assert merged(*files) == (lines(*ordered), ())


def test_each_line_stays_as_it_is(files: list[Path]) -> None:
    """What a newer samdiag wrote into it, too."""
    write(files[0], record("a.pt"))
    files[0].write_bytes(files[0].read_bytes().replace(b'"samdiag_version"', b'"new": 1,  "samdiag_version"'))
    assert merged(files[0])[0] == files[0].read_bytes()


def test_equal_but_for_timings_and_the_machine_is_one(files: list[Path]) -> None:
    first = record("a.pt")
    timed = ProductEngine(name="kept", seconds=3.0)
    second = dataclasses.replace(
        first,
        timings={"measure": 99.0},
        environment={"torch": "2.11.0"},
        measurements=dataclasses.replace(first.measurements, engine=timed),  # type: ignore[type-var]
    )
    write(files[0], first)
    write(files[1], second, second)
    assert merged(files[0], files[1]) == (lines(first), ())


@pytest.mark.parametrize("backwards", [False, True])
def test_of_two_verdicts_the_more_harmful_stays_and_it_is_said(files: list[Path], backwards: bool) -> None:
    harmless, harmful = record("a.pt"), record("a.pt", verdict="saddle-attraction")
    write(files[0], harmless)
    write(files[1], harmful)
    text, notes = merged(*(files[1::-1] if backwards else files[:2]))
    assert text == lines(harmful)
    assert len(notes) == 1
    assert "different verdicts" in notes[0]
    assert "a.pt" in notes[0]


def test_of_two_numbers_the_later_stay_and_it_is_said(files: list[Path]) -> None:
    write(files[0], record("a.pt"))
    later = record("a.pt", measurements=measurements(lambda_max=est(9.43)))
    write(files[1], later)
    text, notes = merged(files[0], files[1])
    assert text == lines(later)
    assert "different numbers" in notes[0]


def test_of_versions_the_newest_stays(files: list[Path]) -> None:
    """0.10 is newer than 0.9, in whichever file it is; another request of the old one is not superseded."""
    new, other = record("a.pt", samdiag_version="0.10.0"), record("a.pt", request="rho 0.2", samdiag_version="0.9.0")
    write(files[0], new)
    write(files[1], record("a.pt", samdiag_version="0.9.0", verdict="bounce"), other)
    assert merged(files[0], files[1]) == (lines(new, other), ())


@pytest.mark.parametrize(
    "unfinished",
    [failure("a.pt"), unopened("a.pt"), cut_short("a.pt"), dataclasses.replace(failure("a.pt"), request="")],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_failure_goes_where_there_is_the_result(files: list[Path], unfinished: Diagnosis, backwards: bool) -> None:
    write(files[0], unfinished, record("b.pt"))
    write(files[1], record("a.pt"))
    assert merged(*(files[1::-1] if backwards else files[:2]))[0] == lines(record("a.pt"), record("b.pt"))


@pytest.mark.parametrize(
    "unfinished", [failure("a.pt", "new"), failure("a.pt", request="rho 0.2"), unopened("c.pt"), cut_short("a.pt", "x")]
)
def test_a_failure_of_another_content_or_request_stays(files: list[Path], unfinished: Diagnosis) -> None:
    """A checkpoint that was written over and is broken now must not pass for the one before it."""
    write(files[0], record("a.pt", "old"), unfinished)
    assert merged(files[0])[0] == lines(record("a.pt", "old"), unfinished)


def test_of_several_failures_the_last_stays_and_one_cut_short_before_any(files: list[Path]) -> None:
    last = failure("a.pt", warnings=("the second try",))
    write(files[0], failure("a.pt"), cut_short("b.pt"))
    write(files[1], last, failure("b.pt"))
    assert merged(files[0], files[1])[0] == lines(last, cut_short("b.pt"))


def test_merging_what_was_merged_changes_nothing(files: list[Path]) -> None:
    rng = random.Random(2)
    makers = (record, failure, cut_short)
    for path in files:
        write(path, *(rng.choice(makers)(f"{rng.choice('abc')}.pt", rng.choice("xy")) for _ in range(20)))
    once, _ = merged(*files)
    files[0].write_bytes(once)
    assert merged(*files)[0] == once
    assert merged(files[0]) == (once, ())


def test_torn_last_lines_are_left_out_and_said(files: list[Path]) -> None:
    for path, name in zip(files, "abc", strict=True):
        write(path, record(f"{name}.pt"), behind=lines(record("torn.pt"))[:700])
    text, notes = merged(*files)
    assert text == lines(record("a.pt"), record("b.pt"), record("c.pt"))
    assert len(notes) == 3
    assert all("torn" in note for note in notes)


def test_a_single_report_over_several_lines_is_read_too(files: list[Path]) -> None:
    from samdiag.reports import json_lines

    files[0].write_text(json_lines.render(record("a.pt"), indent=2) + "\n")
    assert merged(files[0])[0] == lines(record("a.pt"))


def test_a_pipe_is_read_too(files: list[Path]) -> None:
    os.mkfifo(files[0])
    content = lines(*(record(f"{i}.pt") for i in range(50)))  # more than a pipe holds at once
    writer = threading.Thread(target=files[0].write_bytes, args=(content,))
    writer.start()
    assert merged(files[0])[0] == content
    writer.join()


def test_nothing_in_nothing_out(files: list[Path]) -> None:
    files[0].write_bytes(b"")
    assert merged(files[0]) == (b"", ())


def test_a_broken_line_is_named_with_its_file(files: list[Path]) -> None:
    write(files[0], record("a.pt"))
    files[1].write_bytes(lines(record("b.pt")) + b"oops\n")
    with pytest.raises(UsageError, match=r"shard-1\.jsonl, line 2"):
        merged(*files[:2])


def test_a_record_of_another_format_is_named(files: list[Path]) -> None:
    write(files[0], record("a.pt"), dataclasses.replace(diagnosis(), format_version=99))
    with (
        merging(files[:1]) as union,
        pytest.raises(CannotDecide, match=r"shard-0\.jsonl, line 2 has format version 99"),
    ):
        list(union.diagnoses())


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        merged(tmp_path / name)


def test_ten_seeds_of_one_checkpoint_are_ten_records(files: list[Path]) -> None:
    ten = [seeded(seed, record("a.pt", request=f"seed {seed}")) for seed in range(10)]
    write(files[0], *reversed(ten))
    with merging(files[:1]) as union:
        assert [seed for _, seed in union.diagnoses()] == list(range(10))


def test_thousands_are_not_held(tmp_path: Path) -> None:
    """What is kept of a record while merging is less than half of it, imports and all."""
    code = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from samdiag.fleet.merging import merging\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "with merging([Path(sys.argv[1])]) as union:\n"
        "    size = sum(len(text) for text in union.texts())\n"
        "print(len(union.rows), size, peak() - before)\n"
    )
    one = lines(record("a.pt"))
    path = tmp_path / "out.jsonl"
    with path.open("wb") as file:
        for i in range(2000):
            file.write(one.replace(b'"a.pt"', b'"%d.pt"' % i))
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True, text=True)
    count, size, used = map(int, run.stdout.split())
    assert count == 2000
    assert used < size / 2, (used, size)


def test_json_of_a_torn_utf8_is_no_crash(files: list[Path]) -> None:
    files[0].write_bytes(lines(record("a.pt")) + json.dumps({"format_version": 1}).encode()[:-1] + b"\xff")
    assert merged(files[0])[0] == lines(record("a.pt"))
