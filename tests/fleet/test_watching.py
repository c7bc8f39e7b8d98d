"""A watch over a run that is played: every way in which files come, change and go."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from samdiag.fleet.watching import Reason
from tests.fleet.live_run import PlayedRun, diagnosed, ended, notes, record, safetensors
from tests.formats.folders import pieces, write_distributed, write_shards


@pytest.fixture
def run(tmp_path: Path) -> PlayedRun:
    (tmp_path / "run").mkdir()
    return PlayedRun(tmp_path / "run")


def zipped() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(300)}, buffer)
    return buffer.getvalue()


# ---------------------------------------------------------------- files that come in pieces


@pytest.mark.parametrize(("name", "data"), [("step-1.safetensors", safetensors()), ("step-1.pt", zipped())])
def test_a_file_written_in_pieces_is_diagnosed_once_and_whole(run: PlayedRun, name: str, data: bytes) -> None:
    for moment, share in ((3, 0.2), (40, 0.6), (90, 1.0)):  # the pauses are longer than --settle
        run.writes(moment, name, data[: int(share * len(data))])
    events = run.follow()
    assert run.names == [name]
    assert run.inspected[0][1] >= 95
    assert [text for _, text in notes(events) if "incomplete" in text], "that it stalled was said"


def test_room_that_was_made_for_a_file_is_not_the_file(run: PlayedRun) -> None:
    run.writes(0, "step-1.safetensors", bytes(400))
    run.writes(100, "step-1.safetensors", safetensors())
    run.follow()
    assert [moment >= 105 for _, moment in run.inspected] == [True]


def test_a_size_that_still_changes_is_waited_for(run: PlayedRun) -> None:
    for moment in range(1, 60, 4):  # torch's old layout says nothing about its length: only rest tells
        run.writes(moment, "old.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(moment))
    run.follow()
    assert [(name, moment >= 62) for name, moment in run.inspected] == [("old.pt", True)]


@pytest.mark.parametrize("last", ["index", "shard"])
def test_a_sharded_checkpoint_waits_for_its_index_and_all_shards(run: PlayedRun, tmp_path: Path, last: str) -> None:
    made = tmp_path / "made"
    write_shards(made, {f"model-0000{n}-of-00002.safetensors": {f"w{n}": torch.ones(3)} for n in (1, 2)})
    files = sorted(made.iterdir(), key=lambda path: (path.suffix == ".json") == (last == "index"))
    assert files[-1].name.endswith("index.json" if last == "index" else "safetensors")
    for number, file in enumerate(files):
        run.writes(30 * number, f"checkpoint-5/{file.name}", file.read_bytes())
    run.follow()
    assert [(name, moment >= 65) for name, moment in run.inspected] == [("checkpoint-5", True)]


def test_shards_beside_other_checkpoints_are_one_checkpoint(run: PlayedRun, tmp_path: Path) -> None:
    made = tmp_path / "made"
    write_shards(made, {f"model-0000{n}-of-00002.safetensors": {f"w{n}": torch.ones(3)} for n in (1, 2)})
    for number, file in enumerate(sorted(made.iterdir(), reverse=True)):  # the index first
        run.writes(20 * number, file.name, file.read_bytes())
    run.writes(0, "step-7.safetensors", safetensors())
    run.follow()
    assert run.names == ["step-7.safetensors", "model.safetensors.index.json"]


def test_a_distributed_folder_waits_for_its_metadata(run: PlayedRun, tmp_path: Path) -> None:
    weights = torch.ones(4, 2)
    write_distributed(tmp_path / "made", pieces("w", weights, 2), {"w": weights.shape})
    data = next((tmp_path / "made").glob("*.distcp"))
    metadata = (tmp_path / "made" / ".metadata").read_bytes()
    run.writes(0, f"step-5/{data.name}", data.read_bytes()[:100])
    run.writes(20, f"step-5/{data.name}", data.read_bytes())
    run.writes(60, "step-5/.metadata", metadata)
    run.follow()
    assert [(name, moment >= 65) for name, moment in run.inspected] == [("step-5", True)]


def test_a_trainers_folder_is_one_checkpoint_with_its_optimizer(run: PlayedRun) -> None:
    for moment, name, data in (
        (3, "model.safetensors", safetensors()),
        (3, "config.json", b"{}"),
        (6, "optimizer.pt", zipped()[:500]),
        (9, "optimizer.pt", zipped()),
        (10, "rng_state.pth", zipped()),
        (11, "trainer_state.json", b"{}"),
    ):
        run.writes(moment, f"checkpoint-500/{name}", data)
    run.follow()
    assert [(name, moment >= 16) for name, moment in run.inspected] == [("checkpoint-500", True)]


# ---------------------------------------------------------------- names, renames, rewrites


def test_a_temporary_name_is_left_alone_and_an_atomic_rename_seen(run: PlayedRun) -> None:
    run.writes(2, ".tmp-step-1.safetensors", safetensors())
    run.writes(2, "step-2.safetensors.tmp", safetensors())
    run.writes(2, "tmp-checkpoint-3/model.safetensors", safetensors())
    run.renames(50, "step-2.safetensors.tmp", "step-2.safetensors")
    events = run.follow()
    assert [(name, moment >= 55) for name, moment in run.inspected] == [("step-2.safetensors", True)]
    assert notes(events) == []


def test_a_file_rewritten_in_place_is_diagnosed_once_per_content(run: PlayedRun) -> None:
    run.writes(0, "last.safetensors", safetensors(mark=1))
    run.writes(50, "last.safetensors", safetensors(mark=2))
    run.writes(100, "last.safetensors", safetensors(mark=2))  # written again, the same
    run.writes(150, "last.safetensors", safetensors(mark=1))  # back to what it was: it is the run's state now
    events = run.follow()
    assert run.names == ["last.safetensors"] * 3
    found = [event.diagnosis.checkpoint.fingerprint for event in diagnosed(events) if event.diagnosis.checkpoint]
    assert found[0] == found[2] != found[1]


def test_links_to_the_same_run_are_passed_over(run: PlayedRun) -> None:
    run.writes(0, "step-1.safetensors", safetensors())
    run.writes(0, "checkpoint-5/model.safetensors", safetensors())
    (run.folder / "last.safetensors").symlink_to("step-1.safetensors")
    (run.folder / "latest").symlink_to("checkpoint-5")
    (run.folder / "everything").symlink_to("..")
    run.follow()
    assert run.names == ["step-1.safetensors", "checkpoint-5"]


def test_what_is_no_checkpoint_is_said_and_left_alone(run: PlayedRun) -> None:
    run.writes(0, "labels.bin", b"these are words and not weights")
    run.writes(0, "train.log", b"step 1")
    events = run.follow()
    assert run.names == []
    assert notes(events) == [("labels.bin", "is left alone: its content is that of no checkpoint")]


# ---------------------------------------------------------------- what goes


def test_a_checkpoint_that_vanishes_before_its_turn_is_noted_and_forgotten(run: PlayedRun) -> None:
    run.takes = 100
    for step in (1, 2, 3):
        run.writes(0, f"step-{step}.safetensors", safetensors(mark=step))
    run.removes(50, "step-2.safetensors")  # while step-1 is diagnosed
    events = run.follow()
    assert run.names == ["step-1.safetensors", "step-3.safetensors"]
    assert notes(events) == [("step-2.safetensors", "vanished before it was diagnosed")]
    assert all(event.diagnosis.failure is None for event in diagnosed(events))


def test_a_checkpoint_that_vanishes_after_its_turn_is_forgotten_in_silence(run: PlayedRun) -> None:
    run.writes(0, "step-1.safetensors", safetensors())
    run.removes(60, "step-1.safetensors")
    assert notes(run.follow()) == []


def test_a_checkpoint_that_vanishes_while_it_is_read_is_an_error_and_the_watch_goes_on(run: PlayedRun) -> None:
    for step in (1, 2):
        run.writes(0, f"step-{step}.safetensors", safetensors(mark=step))
    run.during = {"step-1.safetensors": (run.folder / "step-1.safetensors").unlink}
    first, second = diagnosed(run.follow())
    assert first.diagnosis.failure is not None
    assert first.diagnosis.failure.exit_code == 3
    assert "step-1.safetensors vanished while it was being read" in first.diagnosis.failure.what
    assert second.diagnosis.failure is None


def test_a_checkpoint_that_is_rewritten_while_it_is_read_is_diagnosed_once_more(run: PlayedRun) -> None:
    run.writes(0, "last.safetensors", safetensors(mark=1))
    run.unreadable = frozenset({"last.safetensors"})

    def rewrite() -> None:
        run._write("last.safetensors", safetensors(mark=2))
        run.unreadable, run.during = frozenset(), {}

    run.during = {"last.safetensors": rewrite}
    events = run.follow()
    assert run.names == ["last.safetensors"] * 2
    assert [event.diagnosis.failure for event in diagnosed(events)] == [None], "the torn one is no record"
    assert notes(events) == [
        ("last.safetensors", "was rewritten while it was being read: once more when it is complete")
    ]


def test_a_folder_that_is_away_for_a_while_makes_nothing_twice(run: PlayedRun) -> None:
    run.writes(0, "step-1.safetensors", safetensors())
    away = run.folder.with_name("away")
    run.at(50, lambda: run.folder.rename(away))
    run.at(120, lambda: away.rename(run.folder))
    events = run.follow()
    assert run.names == ["step-1.safetensors"]
    assert notes(events) == [("run", "cannot be listed: No such file or directory")], "said once, not at every look"


# ---------------------------------------------------------------- order and backpressure


def test_those_that_wait_are_taken_in_the_order_of_their_steps(run: PlayedRun) -> None:
    for step in (100, 20, 3):
        run.writes(0, f"step-{step}.safetensors", safetensors(mark=step))
    run.writes(0, "best.safetensors", safetensors(mark=9))
    events = run.follow()
    assert run.names == ["step-3.safetensors", "step-20.safetensors", "step-100.safetensors", "best.safetensors"]
    assert [event.waiting for event in diagnosed(events)] == [3, 2, 1, 0]


def test_newest_passes_over_what_it_cannot_keep_up_with(run: PlayedRun) -> None:
    run.takes = 100
    for step in range(1, 7):
        run.writes(30 * (step - 1), f"step-{step}.safetensors", safetensors(mark=step))
    events = run.follow(newest=True)
    assert run.names == ["step-1.safetensors", "step-4.safetensors", "step-6.safetensors"]
    assert [name for name, _ in notes(events)] == ["step-2.safetensors", "step-3.safetensors", "step-5.safetensors"]


def test_newest_is_by_run(run: PlayedRun, tmp_path: Path) -> None:
    for moment, name in ((1, "a/step-1"), (2, "a/step-2"), (3, "b/step-1")):
        run.writes(moment, f"{name}.safetensors", safetensors(mark=moment))
    run.at(0, lambda: [(run.folder / name).mkdir() for name in "ab"])
    run.follow(newest=True, roots=(str(run.folder / "a"), str(run.folder / "b")))
    assert sorted(run.names) == ["a/step-2.safetensors", "b/step-1.safetensors"]


def test_only_what_is_wanted(run: PlayedRun) -> None:
    for name in ("best.safetensors", "step-1.safetensors"):
        run.writes(0, name, safetensors())
    run.follow(wanted=lambda path: path.endswith("best.safetensors"))
    assert run.names == ["best.safetensors"]


# ---------------------------------------------------------------- how it ends


def test_it_ends_when_nothing_changes_any_more(run: PlayedRun) -> None:
    run.takes = 50
    run.writes(40, "step-1.safetensors", safetensors())
    assert ended(run.follow(idle_exit=300.0)).reason is Reason.IDLE
    assert run.inspected == [("step-1.safetensors", 45)]
    assert run.seconds == pytest.approx(45 + 50 + 300)


def test_the_stop_file_ends_it_after_what_was_written_just_before(run: PlayedRun) -> None:
    run.writes(41, "step-1.safetensors", safetensors())
    run.writes(41, "DONE", b"")
    events = run.follow(until_file="DONE", idle_exit=None)
    assert run.names == ["step-1.safetensors"]
    assert ended(events).reason is Reason.STOP_FILE
    assert run.seconds < 60


def test_every_run_has_to_say_that_it_is_over(run: PlayedRun) -> None:
    run.writes(0, "a/DONE", b"")
    run.writes(500, "b/DONE", b"")
    (run.folder / "b").mkdir()
    run.follow(until_file="DONE", idle_exit=None, roots=(str(run.folder / "a"), str(run.folder / "b")))
    assert run.seconds >= 500


def test_a_stop_file_may_have_a_path(run: PlayedRun, tmp_path: Path) -> None:
    run.at(70, (tmp_path / "over").touch)
    run.follow(until_file=str(tmp_path / "over"), idle_exit=None)
    assert 70 <= run.seconds < 100


def test_what_is_incomplete_when_the_run_is_over_is_an_error(run: PlayedRun) -> None:
    run.unreadable = frozenset({"step-1.safetensors"})
    run.writes(0, "step-1.safetensors", safetensors()[:50])
    run.writes(0, "DONE", b"")
    [found] = diagnosed(run.follow(until_file="DONE", idle_exit=None))
    assert found.diagnosis.failure is not None
    assert "is incomplete, and nobody writes to it any more: it is not a" in found.diagnosis.failure.what
    assert found.diagnosis.failure.exit_code == 3
    assert run.seconds < 20


def test_once_takes_what_is_there_and_waits_for_nothing_else(run: PlayedRun) -> None:
    run.writes(0, "step-1.safetensors", safetensors())
    run.writes(0, "step-2.safetensors", safetensors()[:50])
    run.writes(2, "step-3.safetensors", safetensors())  # too late to have settled
    events = run.follow(once=True, idle_exit=None)
    assert run.names == ["step-1.safetensors"]
    assert ended(events).reason is Reason.ONCE
    assert [(Path(path).name, reason) for path, reason in ended(events).left] == [
        ("step-3.safetensors", "it is being written"),
        ("step-2.safetensors", "it is incomplete"),
    ]
    assert run.seconds == pytest.approx(5)


def test_what_stays_incomplete_is_diagnosed_as_it_is_once(run: PlayedRun) -> None:
    run.unreadable = frozenset({"step-1.safetensors"})
    run.writes(0, "step-1.safetensors", safetensors()[:50])
    events = run.follow(overdue=300.0)
    assert [(name, 300 <= moment <= 320) for name, moment in run.inspected] == [("step-1.safetensors", True)]
    [found] = diagnosed(events)
    assert found.diagnosis.failure is not None
    assert found.diagnosis.failure.todo == "if its save was interrupted, remove it"


def test_what_was_left_incomplete_long_ago_is_not_waited_for(run: PlayedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.writes(0, "step-1.safetensors", safetensors()[:50])
    touched = (run.folder / "step-1.safetensors").stat().st_ctime
    monkeypatch.setattr(PlayedRun, "wall", lambda _: touched + 301)
    run.follow(once=True, idle_exit=None, overdue=300.0)
    assert run.names == ["step-1.safetensors"]


# ---------------------------------------------------------------- history


def test_what_an_earlier_watch_has_made_is_not_made_again(run: PlayedRun) -> None:
    for step in (1, 2):
        run.writes(0, f"step-{step}.safetensors", safetensors(mark=step))
    old = record(str(run.folder / "step-1.safetensors"))
    run.known = lambda entry, identity: (
        old if old.checkpoint and identity.fingerprint == old.checkpoint.fingerprint else None
    )
    events = run.follow()
    assert run.names == ["step-2.safetensors"]
    assert [event.known for event in diagnosed(events)] == [True, False]


def test_a_look_opens_no_file(run: PlayedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from samdiag.fleet.sightings import look

    run.writes(0, "step-1.safetensors", safetensors())
    run.writes(0, "checkpoint-2/model.safetensors", safetensors())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    for module in ("builtins", "io", "os"):
        monkeypatch.setattr(f"{module}.open", refuse)
    assert len(look(str(run.folder))) == 2
