from __future__ import annotations

import os
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

from samdiag.cli.report_files import append_step_summary, parse_reports, write_reports
from samdiag.errors import CannotDecide, UsageError
from samdiag.reports.media import MEDIA
from tests.reports.fleet_samples import fleet

FLEET = fleet()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "what", "todo"),
    [
        ("junit", "--report 'junit' is not FORMAT=PATH", "write FORMAT=PATH"),
        ("=out.xml", "--report '=out.xml' is not FORMAT=PATH", "write FORMAT=PATH"),
        ("junit=", "--report 'junit=' is not FORMAT=PATH", "write FORMAT=PATH"),
        ("junit=-", "--report junit=- names no file", "use --format junit for stdout"),
        ("markdwon=x", "--report 'markdwon' is unknown; did you mean 'markdown'?", "choose text or json or"),
        ("junit=gone/out.xml", "cannot write gone/out.xml", "in a folder that exists and is writable"),
        ("junit=.", "cannot write .", "in a folder that exists and is writable"),
        (f"junit={'x' * 300}", f"cannot write {'x' * 300}", "in a folder that exists"),
        ("junit=a\0b", "cannot write a\\x00b", "in a folder that exists"),
        ("junit=a.pt", "--report names a.pt, which is one of the checkpoints", "give it a name of its own"),
        ("junit=./done.jsonl", "--resume and --report both name done.jsonl", "give one of the two"),
    ],
)
def test_what_cannot_be_written_is_a_usage_error(asked: str, what: str, todo: str, here: Path) -> None:
    with pytest.raises(UsageError) as raised:
        parse_reports([asked], inputs=["./a.pt"], taken={"--resume": Path("done.jsonl"), "--output": None})
    assert raised.value.what == what
    assert todo in raised.value.todo


def test_the_same_file_twice_is_a_usage_error(here: Path) -> None:
    Path("link").symlink_to("out")
    with pytest.raises(UsageError, match="another --report and --report both name link"):
        parse_reports(["junit=out", "json=link"])


def test_all_files_are_written_whole(here: Path) -> None:
    files = parse_reports([f"{name}={name}.out" for name in MEDIA])
    for missing in (2, 0):  # what an interrupted run left is replaced
        write_reports(files, FLEET, missing=missing)
    assert sorted(os.listdir()) == sorted(f"{name}.out" for name in MEDIA)
    assert ElementTree.parse("junit.out").getroot()[0].get("tests") == "8"
    for name in MEDIA:
        assert Path(f"{name}.out").read_text(encoding="utf-8") == MEDIA[name].render(FLEET) + "\n"
        assert Path(f"{name}.out").stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_one_that_fails_does_not_stop_the_others(here: Path) -> None:
    Path("full").symlink_to("/dev/full")
    files = parse_reports(["junit=full", "json=out.jsonl"])
    with pytest.raises(CannotDecide, match="the report could not be written to full: No space left"):
        write_reports(files, FLEET)
    assert Path("out.jsonl").read_text(encoding="utf-8").count("\n") == len(FLEET)


def test_a_failed_write_leaves_the_old_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.md").write_text("old", encoding="utf-8")
    files = parse_reports(["markdown=out.md"])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CannotDecide):
        write_reports(files, FLEET)
    assert Path("out.md").read_text(encoding="utf-8") == "old"
    assert os.listdir() == ["out.md"]


def test_a_pipe_is_written_to_and_stays_a_pipe(here: Path) -> None:
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text(encoding="utf-8")))
    reader.start()
    write_reports(parse_reports(["github=pipe"]), FLEET)
    reader.join(10)
    assert read == [MEDIA["github"].render(FLEET) + "\n"]
    assert Path("pipe").is_fifo()


def test_a_link_keeps_leading_to_the_file(here: Path) -> None:
    Path("kept").mkdir()
    Path("latest.md").symlink_to("kept/out.md")
    write_reports(parse_reports(["markdown=latest.md"]), FLEET)
    assert Path("latest.md").is_symlink()
    assert Path("kept/out.md").is_file()


def test_the_step_summary_is_appended(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("summary.md").write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary.md"))
    append_step_summary(FLEET)
    assert Path("summary.md").read_text(encoding="utf-8").startswith("before\n### ✖ samdiag: 1 of 8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here))
    with pytest.raises(CannotDecide, match="the step summary could not be written"):
        append_step_summary(FLEET)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    append_step_summary(FLEET)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
