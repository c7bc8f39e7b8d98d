"""`samdiag merge`: one file out of several, the gate over all, and no result lost to it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from samdiag.cli.app import app
from samdiag.fleet.appending import RecordFile

from ..fleet.records import failure, lines, record, room_for, unopened, write


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["merge", *(str(argument) for argument in arguments)])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shards() -> list[Path]:
    minimum = {"findings": ()}
    return [
        write(Path("1.jsonl"), record("b.pt", step=20, **minimum), unopened("a.pt")),
        write(Path("2.jsonl"), record("a.pt", step=10, **minimum)),
    ]


def test_to_stdout(shards: list[Path]) -> None:
    found = run(*shards)
    assert found.exit_code == 0
    assert [json.loads(line)["checkpoint"]["path"] for line in found.stdout.splitlines()] == ["a.pt", "b.pt"]
    assert found.stderr == ""


def test_to_a_file_again_and_again(shards: list[Path]) -> None:
    for _ in range(2):
        assert run(*shards, "--output", "all.jsonl").exit_code == 0
    assert Path("all.jsonl").read_bytes() == run(*shards).stdout_bytes
    assert sorted(path.name for path in Path().iterdir()) == ["1.jsonl", "2.jsonl", "all.jsonl"]


def test_into_one_of_the_files_that_is_named_so(shards: list[Path]) -> None:
    shards[0].chmod(0o640)
    expected = run(*shards).stdout_bytes
    assert run(*shards, "--output", shards[0]).exit_code == 0
    assert shards[0].read_bytes() == expected
    assert shards[0].stat().st_mode & 0o777 == 0o640


def test_a_result_that_is_only_in_the_output_is_not_lost(shards: list[Path]) -> None:
    before = write(Path("all.jsonl"), record("a.pt"), record("c.pt")).read_bytes()
    found = run(*shards, "--output", "all.jsonl")
    assert found.exit_code == 2
    assert "all.jsonl holds 1 record(s) that are in none of the files" in found.stderr
    assert Path("all.jsonl").read_bytes() == before
    assert run(*shards, "all.jsonl", "--output", "all.jsonl").exit_code == 0
    assert len(Path("all.jsonl").read_bytes().splitlines()) == 3


def test_a_foreign_output_is_left_alone(shards: list[Path]) -> None:
    Path("weights.pt").write_bytes(b"PK\x03\x04")
    found = run(*shards, "--output", "weights.pt")
    assert (found.exit_code, Path("weights.pt").read_bytes()) == (2, b"PK\x03\x04")
    assert "not a results file" in found.stderr


def test_a_report_never_takes_the_place_of_results(shards: list[Path]) -> None:
    before = shards[0].read_bytes()
    found = run(*shards, "--format", "markdown", "--output", shards[0])
    assert (found.exit_code, shards[0].read_bytes()) == (2, before)


def test_an_output_that_a_run_is_writing_to(shards: list[Path]) -> None:
    with RecordFile(shards[0]):
        found = run(*shards, "--output", shards[0])
        assert found.exit_code == 2
        assert "in use" in found.stderr
        assert run(*shards).exit_code == 0  # reading does no harm


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), 1),
        (("--fail-on", "bounce"), 0),
        (("--fail-on", "saddle-attraction"), 1),
        (("--fail-on", "never"), 0),
        (("--fail-on", "never", "--require", "lambda_max < 5"), 1),
        (("--fail-on", "never", "--require", "lambda_max < 9.42"), 3),
        (("--fail-on", "never", "--require", "lambda_max < 20"), 0),
        (("--fail-on", "sadle"), 2),
        (("--require", "lambda_max"), 2),
        (("--format", "pdf"), 2),
        (("--report", "junit"), 2),
        (("--output", "no/such/place.jsonl"), 2),
        (("--output", "."), 2),
    ],
)
def test_exit_codes_of_the_gate(options: tuple[str, ...], code: int) -> None:
    from ..reports.samples import finding

    path = write(Path("1.jsonl"), record("a.pt", verdict="saddle-attraction", findings=(finding("saddle-attraction"),)))
    found = run(path, *options)
    assert found.exit_code == code, found.output
    if code == 2:
        assert len(found.stderr.splitlines()) == 2


@pytest.mark.parametrize("name", ["failure", "empty", "torn"])
def test_a_gap_is_not_a_pass(name: str) -> None:
    content = {"failure": lines(failure("a.pt")), "empty": b"", "torn": lines(record("a.pt"))[:-50]}[name]
    Path("1.jsonl").write_bytes(content)
    assert run("1.jsonl", "--fail-on", "never").exit_code == 3


@pytest.mark.parametrize("content", [None, b"no results\n", b'{"format_version": 1}\n'])
def test_what_is_no_result_is_usage_and_nothing_is_written(shards: list[Path], content: bytes | None) -> None:
    if content is not None:
        Path("3.jsonl").write_bytes(content)
    found = run(*shards, "3.jsonl", "--output", "all.jsonl")
    assert found.exit_code == 2
    assert "3.jsonl" in found.stderr
    assert len(found.stderr.splitlines()) == 2
    assert not Path("all.jsonl").exists()


def test_other_formats_and_reports(shards: list[Path]) -> None:
    found = run(*shards, "--format", "text", "--report", "junit=junit.xml", "--report", "markdown=out.md")
    assert found.exit_code == 0
    assert found.stdout.index("a.pt") < found.stdout.index("b.pt")
    suite = ElementTree.parse("junit.xml").getroot()
    assert len(list(suite.iter("testcase"))) == 2
    assert "a.pt" in Path("out.md").read_text()


def test_quiet(shards: list[Path]) -> None:
    write(Path("3.jsonl"), behind=b'{"format_version"')
    assert "torn" in run(*shards, "3.jsonl").stderr
    assert run(*shards, "3.jsonl", "-q").stderr == ""
    found = run(*shards, "3.jsonl", "-qq")
    assert (found.exit_code, found.output) == (3, "")  # a torn line is a record that is missing


def test_a_full_disk_leaves_what_was_there(shards: list[Path]) -> None:
    before = shards[0].read_bytes()
    with room_for(1000):
        found = run(*shards, "--output", shards[0])
    assert (found.exit_code, len(found.stderr.splitlines())) == (3, 2)
    assert shards[0].read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["1.jsonl", "2.jsonl"]


def test_a_device_that_is_full(shards: list[Path]) -> None:
    found = run(*shards, "--output", "/dev/full")
    assert found.exit_code == 3
    assert "No space left on device" in found.stderr


def test_merge_is_torch_free(shards: list[Path]) -> None:
    code = (
        "import sys\n"
        "from samdiag.cli.app import app\n"
        "try:\n"
        "    app(['merge', '1.jsonl', '2.jsonl'])\n"
        "except SystemExit as ended:\n"
        "    print(ended.code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ended.stderr == "0 False\n"


def test_a_list_that_was_expected(shards: list[Path]) -> None:
    names = [json.loads(line)["checkpoint"]["path"] for shard in shards for line in shard.read_text().splitlines()]
    Path("list.txt").write_text("\n".join(names) + "\n")
    assert run(*shards, "--expect", "list.txt").exit_code == 0
    Path("list.txt").write_bytes("\0".join([*names, "never made.pt"]).encode() + b"\0")
    found = run(*shards, "--expect", "list.txt", "--report", "junit=out.xml")
    assert found.exit_code == 3
    assert "1 of 3 have no record: never made.pt" in found.stderr
    assert 'errors="1"' in Path("out.xml").read_text()
    Path("list.txt").write_text(f"./{names[0]}\n")
    found = run(*shards, "--expect", "list.txt")
    assert found.exit_code == 0
    assert len(found.stdout.splitlines()) == 1
    assert "of no checkpoint in the list" in found.stderr


def test_what_a_file_held_before_it_was_rewritten_is_left_out_of_the_list() -> None:
    Path("a.pt").write_bytes(b"present")
    present = hashlib.sha256(b"present").hexdigest()
    Path("all.jsonl").write_text(lines(record("a.pt", "old"), record("a.pt", present)).decode())
    Path("list.txt").write_text("a.pt\n")
    assert len(run("all.jsonl").stdout.splitlines()) == 2
    found = run("all.jsonl", "--expect", "list.txt")
    assert [json.loads(line)["checkpoint"]["fingerprint"] for line in found.stdout.splitlines()] == [
        f"sha256:{present}"
    ]
    Path("a.pt").unlink()  # then nobody knows which it is
    assert len(run("all.jsonl", "--expect", "list.txt").stdout.splitlines()) == 2


@pytest.mark.parametrize("content", [None, b"", b"\n\n"])
def test_an_expected_list_that_is_none(content: bytes | None, shards: list[Path]) -> None:
    if content is not None:
        Path("list.txt").write_bytes(content)
    found = run(*shards, "--expect", "list.txt")
    assert found.exit_code == 2
    assert "--list" in found.stderr
