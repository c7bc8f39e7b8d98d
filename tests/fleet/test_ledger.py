"""A ledger gives back what was finished, and is never left with less than it had."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from samdiag.errors import CannotDecide, UsageError
from samdiag.fleet import appending
from samdiag.fleet.entries import Entry
from samdiag.fleet.ledger import Ledger, tried_again
from samdiag.preparing import Identity
from samdiag.records import read_records

from ..reports.samples import hostile, unbounded
from .records import VERSION, cut_short, failure, identity, lines, record, room_for, unopened, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def fill(path: Path, *diagnoses: object, **options: object) -> None:
    with Ledger(path, **options) as ledger:  # type: ignore[arg-type]
        for one in diagnoses:
            ledger.append(one)  # type: ignore[arg-type]


def test_what_was_appended_is_done_in_the_next_run(path: Path) -> None:
    fill(path, record("a.pt", "a"), record("b.pt", "b"))
    with Ledger(path) as ledger:
        assert ledger.done("a.pt", identity("a"), VERSION) == record("a.pt", "a")
        assert ledger.done("b.pt", identity("b"), VERSION) == record("b.pt", "b")
        assert (len(ledger), ledger.notes) == (2, ())


def test_and_in_the_same_run(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(unopened("x.pt"))
        ledger.append(record("a.pt", "a"))
        assert ledger.done("a.pt", identity("a"), VERSION) == record("a.pt", "a")


@pytest.mark.parametrize(
    ("name", "asked", "version"),
    [
        ("b.pt", identity("a"), VERSION),
        ("a.pt", identity("b"), VERSION),
        ("a.pt", identity("a", "rho 0.2"), VERSION),
        ("a.pt", identity("a"), "0.0.9"),
        ("/work/a.pt", identity("a"), VERSION),
    ],
)
def test_another_path_content_request_or_version_is_not_done(
    path: Path, name: str, asked: Identity, version: str
) -> None:
    fill(path, record("a.pt", "a"))
    with Ledger(path) as ledger:
        assert ledger.done(name, asked, version) is None


@pytest.mark.parametrize(("said", "asked"), [("./a.pt", "a.pt"), ("runs//a/", "runs/a"), ("../x/a.pt", "../x/a.pt")])
def test_paths_are_compared_as_given(path: Path, said: str, asked: str) -> None:
    fill(path, record(said, "a"))
    with Ledger(path) as ledger:
        assert ledger.done(asked, identity("a"), VERSION) is not None


def test_whatever_a_checkpoint_is_called(path: Path) -> None:
    name = "実験/\udcff\n\u2028.pt"
    fill(path, hostile(), unbounded(), record(name, "a"))
    with Ledger(path) as ledger:
        assert ledger.done(name, identity("a"), VERSION) == record(name, "a")


@pytest.mark.parametrize("unfinished", [failure(), cut_short()])
def test_a_failure_or_a_spectrum_cut_short_is_not_done(path: Path, unfinished: object) -> None:
    with Ledger(path) as ledger:
        ledger.append(unfinished)  # type: ignore[arg-type]
        assert ledger.done("a.pt", identity("a"), VERSION) is None
    assert len(list(read_records(path))) == 1
    with Ledger(path) as ledger:
        assert ledger.done("a.pt", identity("a"), VERSION) is None
        assert "1 unfinished record(s)" in ledger.notes[0]
    assert path.read_bytes() == b""


def test_what_is_tried_again_is_dropped_and_nothing_else(path: Path) -> None:
    """The run asks for rho 0.1 of a, b and c; c cannot be opened now."""
    kept = (
        record("a.pt", "old"),
        record("a.pt", "a", samdiag_version="0.0.9"),
        failure("a.pt", "a", "rho 0.2"),
        failure("z.pt"),
        unopened("z.pt"),
        record("b.pt", "b", "rho 0.2"),
    )
    again = (failure("a.pt", "a"), failure("a.pt", "old"), unopened("./b.pt"), cut_short("b.pt"), failure("c.pt", "x"))
    mixed = [one for pair in zip(kept, again, strict=False) for one in pair] + [kept[-1]]
    write(path, *mixed)

    def identify(entry: Entry) -> Identity:
        if entry.path == "c.pt":
            raise CannotDecide("gone", "bring it back")
        return identity(entry.path[0])

    entries = [Entry(path="a.pt"), Entry(path="b.pt"), Entry(path="c.pt")]
    with Ledger(path, again=tried_again(entries, identify)) as ledger:
        ledger.append(record("c.pt", "c"))
        assert ledger.done("b.pt", identity("b", "rho 0.2"), VERSION) == kept[-1]
        assert ledger.done("c.pt", identity("c"), VERSION) == record("c.pt", "c")
    assert path.read_bytes() == lines(*kept, record("c.pt", "c"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("with_failure", [False, True])
def test_a_torn_last_line_is_dropped(path: Path, share: float, with_failure: bool) -> None:
    """Wherever the write stopped: after the first byte, or one byte short of a whole object."""
    whole = lines(record("b.pt", "b")).rstrip(b"\n")
    torn = whole[: max(1, int(share * len(whole)) - 1)]
    write(path, record("a.pt", "a"), *([failure("b.pt")] if with_failure else []), behind=torn)
    with Ledger(path) as ledger:
        assert "torn" in ledger.notes[0]
        ledger.append(record("b.pt", "b"))
    assert path.read_bytes() == lines(record("a.pt", "a"), record("b.pt", "b"))


@pytest.mark.parametrize("torn", [b'{"form', b"{", b"\0" * 300, b'{"format_version": 1, "sam\0\0\0\0'])
def test_a_torn_only_line(path: Path, torn: bytes) -> None:
    """Zeros are what a power failure may leave where a record was being written."""
    fill(write(path, behind=torn), record("a.pt", "a"))
    assert path.read_bytes() == lines(record("a.pt", "a"))


def test_a_whole_last_line_without_its_end_is_kept(path: Path) -> None:
    write(path, behind=lines(record("a.pt", "a")).rstrip(b"\n"))
    with Ledger(path) as ledger:
        assert ledger.done("a.pt", identity("a"), VERSION) is not None
        ledger.append(record("b.pt", "b"))
    assert path.read_bytes() == lines(record("a.pt", "a"), record("b.pt", "b"))


def test_empty_lines_and_other_line_ends_do_no_harm(path: Path) -> None:
    one = lines(record("a.pt", "a")).rstrip(b"\n")
    path.write_bytes(b"\n" + one + b"\r\n\r\n" + lines(record("b.pt", "b")) + b'{"format_ver')
    with Ledger(path) as ledger:
        assert ledger.done("a.pt", identity("a"), VERSION) == record("a.pt", "a")
        assert ledger.done("b.pt", identity("b"), VERSION) == record("b.pt", "b")
    assert path.read_bytes().endswith(lines(record("b.pt", "b")))


@pytest.mark.parametrize("broken", [b"{broken}\n", b'{"a": 1}\n', b"[1]\n", b'{"format_version": 1, \n', b"\xff\xfe\n"])
def test_a_broken_line_in_the_middle_is_named_and_nothing_is_touched(path: Path, broken: bytes) -> None:
    path.write_bytes(lines(record("a.pt", "a"), failure("f.pt")) + broken + lines(record("b.pt", "b")) + b'{"form')
    before = path.read_bytes()
    with pytest.raises(UsageError, match="line 3 is not a record"):
        Ledger(path)
    assert path.read_bytes() == before
    Ledger(path.with_name("other.jsonl")).close()  # and the lock of this one is free again
    with pytest.raises(UsageError, match="line 3"):
        Ledger(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "not a results file"),
        (b"\x10\0\0\0\0\0\0\0{}", "not a results file"),
        (b"PK\x03\x04" + b"x" * 50, "not a results file"),
        (b'{"step": 1, "loss": 0.3}\n', "not a results file"),
        (b'{"step": 1', "not a results file"),
        (b"a,b\n1,2\n", "not a results file"),
        (b'{\n  "format_version": 1,\n', "not JSON Lines"),
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        Ledger(path)
    assert path.read_bytes() == content


def test_a_record_that_was_edited_is_named_when_it_is_asked_for(path: Path) -> None:
    write(path, record("b.pt", "b"), record("a.pt", "a"))
    path.write_bytes(path.read_bytes().replace(b'"findings": [', b'"findings": ["minimum", '))
    with Ledger(path) as ledger, pytest.raises(UsageError, match="line 2"):
        ledger.done("a.pt", identity("a"), VERSION)


def test_a_second_run_is_told_who_is_writing(path: Path) -> None:
    with Ledger(path) as ledger:
        with pytest.raises(UsageError, match=f"process {os.getpid()} is writing to it") as refused:
            Ledger(path)
        assert refused.value.exit_code == 2
        ledger.append(record("a.pt", "a"))
    fill(path, record("b.pt", "b"))
    assert path.read_bytes() == lines(record("a.pt", "a"), record("b.pt", "b"))


def test_the_lock_survives_the_rewrite(path: Path) -> None:
    write(path, failure("a.pt"), record("b.pt", "b"))
    with Ledger(path), pytest.raises(UsageError, match="in use"):
        Ledger(path)


def test_through_a_link_it_is_the_same_file(path: Path) -> None:
    link = path.with_name("link.jsonl")
    link.symlink_to(path.name)
    write(path, failure("a.pt"), record("b.pt", "b"))
    with Ledger(link), pytest.raises(UsageError, match="in use"):
        Ledger(path)
    assert link.is_symlink()
    assert path.read_bytes() == lines(record("b.pt", "b"))


def test_a_forked_child_does_not_keep_the_lock_of_a_killed_parent(path: Path) -> None:
    """A data loader's worker outlives a kill -9 of its parent by seconds."""
    code = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from samdiag.fleet.appending import RecordFile\n"
        "held = RecordFile(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os.close(1)\n"
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "print(child, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path], stdout=subprocess.PIPE, check=False, text=True)
    child = int(run.stdout)
    try:
        assert run.returncode == -signal.SIGKILL
        os.kill(child, 0)
        fill(path, record("a.pt", "a"))
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_a_killed_rewrite_leaves_is_no_obstacle(path: Path) -> None:
    """Killed before the new file took the old one's place: the old one is whole, the new one is scrap."""
    write(path, failure("a.pt"), record("b.pt", "b"))
    scrap = path.with_name(".out.jsonl.samdiag-tmp")
    scrap.write_bytes(b"half")
    with Ledger(path):
        assert path.read_bytes() == lines(record("b.pt", "b"))
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


def test_killed_between_the_rename_and_the_next_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, failure("a.pt"), record("b.pt", "b"))

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("samdiag.fleet.ledger.sync_folder", stop)
        with pytest.raises(KeyboardInterrupt):
            Ledger(path)
    fill(path, record("c.pt", "c"))
    assert path.read_bytes() == lines(record("b.pt", "b"), record("c.pt", "c"))


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "os.pread"])
def test_a_rewrite_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    before = write(path, failure("a.pt"), record("b.pt", "b")).read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(call, refuse)
        with pytest.raises(CannotDecide, match="Input/output error"):
            Ledger(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


def test_the_rewrite_keeps_the_permissions(path: Path) -> None:
    write(path, failure("a.pt"), record("b.pt", "b")).chmod(0o640)
    Ledger(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_no_room_for_a_rewrite(path: Path) -> None:
    before = write(path, failure("a.pt"), record("b.pt", "b")).read_bytes()
    with room_for(1000), pytest.raises(CannotDecide, match="File too large"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_record_that_does_not_fit_leaves_those_before_it(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(record("a.pt", "a"))
        before = path.read_bytes()
        with room_for(len(before) + 1000):
            for _ in range(2):  # the second starts at a whole record again
                with pytest.raises(CannotDecide, match=r"could not be written to .*: File too large") as refused:
                    ledger.append(record("b.pt", "b"))
                assert "make room" in refused.value.todo
                assert path.read_bytes() == before
        assert ledger.done("b.pt", identity("b"), VERSION) is None
        ledger.append(record("c.pt", "c"))
    assert path.read_bytes() == lines(record("a.pt", "a"), record("c.pt", "c"))


def test_where_the_torn_line_cannot_be_taken_back_the_next_append_or_run_does(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with Ledger(path) as ledger:
        ledger.append(record("a.pt", "a"))
        with monkeypatch.context() as patched, room_for(path.stat().st_size + 1000):
            patched.setattr(os, "ftruncate", refuse)
            with pytest.raises(CannotDecide):
                ledger.append(record("b.pt", "b"))
            torn = path.read_bytes()
            with pytest.raises(CannotDecide, match="Read-only"):
                ledger.append(record("c.pt", "c"))
            assert path.read_bytes() == torn != lines(record("a.pt", "a"))
        copy = path.with_name("copy.jsonl")
        copy.write_bytes(torn)
        ledger.append(record("c.pt", "c"))
    fill(copy, record("c.pt", "c"))
    assert path.read_bytes() == copy.read_bytes() == lines(record("a.pt", "a"), record("c.pt", "c"))


def test_a_failed_fsync_is_no_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delayed allocation and network file systems say so only here."""

    def refuse(_: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    with Ledger(path) as ledger:
        ledger.append(record("a.pt", "a"))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", refuse)
            with pytest.raises(CannotDecide, match="Disk quota exceeded"):
                ledger.append(record("b.pt", "b"))
    assert path.read_bytes() == lines(record("a.pt", "a"))


def test_ctrl_c_in_the_middle_of_a_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:500])
        raise KeyboardInterrupt

    with Ledger(path) as ledger:
        ledger.append(record("a.pt", "a"))
        with monkeypatch.context() as patched:
            patched.setattr(appending, "write_all", half)
            with pytest.raises(KeyboardInterrupt):
                ledger.append(record("b.pt", "b"))
    assert path.read_bytes() == lines(record("a.pt", "a"))


def test_short_writes_are_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_some = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write_some(descriptor, bytes(data)[:700]))
    fill(path, record("a.pt", "a"))
    assert path.read_bytes() == lines(record("a.pt", "a"))


@pytest.mark.parametrize("how", ["unlink", "rename"])
def test_a_file_taken_away_while_it_is_written_is_said_at_once(path: Path, how: str) -> None:
    with Ledger(path) as ledger:
        ledger.append(record("a.pt", "a"))
        moved = path.with_name("moved.jsonl")
        path.unlink() if how == "unlink" else path.rename(moved)
        with pytest.raises(CannotDecide, match="moved or removed"):
            ledger.append(record("b.pt", "b"))
    if how == "rename":
        assert moved.read_bytes() == lines(record("a.pt", "a"), record("b.pt", "b"))


def test_code_that_changes_the_working_directory_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger(Path("out.jsonl")) as ledger:
        monkeypatch.chdir("/")
        ledger.append(record("a.pt", "a"))
    assert (tmp_path / "out.jsonl").read_bytes() == lines(record("a.pt", "a"))


def test_a_fresh_file_is_only_emptied_by_its_first_record(path: Path) -> None:
    path.write_bytes(b"anything\n")
    with Ledger(path, fresh=True):
        pass
    assert path.read_bytes() == b"anything\n"
    fill(path, record("a.pt", "a"), record("b.pt", "b"), fresh=True)
    assert path.read_bytes() == lines(record("a.pt", "a"), record("b.pt", "b"))


@pytest.mark.parametrize("name", ["no/such/folder.jsonl", "nul\0.jsonl", "x" * 300, "."])
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be written") as refused:
        Ledger(tmp_path / name)
    assert "folder that exists" in refused.value.todo


def test_what_is_no_file_cannot_be_resumed() -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        Ledger(Path("/dev/full"))


def test_but_it_can_be_written_to(path: Path) -> None:
    fill(Path("/dev/null"), record("a.pt", "a"), fresh=True)
    with pytest.raises(CannotDecide, match="No space left on device"):
        fill(Path("/dev/full"), record("a.pt", "a"), fresh=True)
    reader, writer = os.pipe()
    fill(Path(f"/dev/fd/{writer}"), record("a.pt", "a"), record("b.pt", "b"), fresh=True)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == lines(record("a.pt", "a"), record("b.pt", "b"))


def test_a_file_system_without_locks_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with Ledger(path) as ledger:
        assert "cannot be locked" in ledger.notes[0]
        ledger.append(record("a.pt", "a"))
    assert path.read_bytes() == lines(record("a.pt", "a"))


def test_ledger_is_torch_free() -> None:
    code = "import sys, samdiag.fleet.ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
