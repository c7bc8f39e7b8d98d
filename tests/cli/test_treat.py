"""`samdiag treat`: the stuck digits are rescued, the old file is never touched, and nothing computed is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from samdiag import advice
from samdiag.errors import CannotDecide
from samdiag.formats import open_checkpoint, writing
from samdiag.gallery.digits import dataset
from samdiag.gallery.digits_runs import MODEL_ARGS, RUNS, fresh_model
from samdiag.gallery.training import evaluate, one_thread, train
from samdiag.remedies import Phase, Schedule
from samdiag.spec.stamp import stamp
from samdiag.treatment import HARMLESS
from tests.cli.conftest import CALL, Ran, Run, interrupt, save

OWN = """
import torch
from torch import nn

import samdiag


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))


def wells():
    '''x²/2 − y²/2 + y⁴/4: a saddle at 0 and minima of −1/4 at (0, ±1).'''
    return samdiag.Problem(
        model=Point(),
        loss=lambda m, _: 0.5 * m.w[0] ** 2 - 0.5 * m.w[1] ** 2 + 0.25 * m.w[1] ** 4,
        batches=[0],
        num_samples=lambda _: 1,
        population=1,
        loss_lower_bound=-0.25,
    )
"""
WELLS = ("--problem", "own.py:wells", "--lr", "0.1", "--rho", "0.5")


@pytest.fixture
def near(work: Path) -> Path:
    """A run captured near the saddle of two wells."""
    (work / "own.py").write_text(OWN)
    return save({"w": [0.02, 0.01]}, "near.safetensors")


@pytest.fixture(scope="session")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stuck digits run of the gallery, stamped."""
    path = tmp_path_factory.mktemp("digits") / "stuck.safetensors"
    model, recipe = fresh_model(), RUNS["stuck"]
    with one_thread():
        for _ in train(model, dataset(), recipe):
            pass
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    stamp(
        path,
        model={"gallery": "digits-mlp", "args": dict(MODEL_ARGS)},
        data={"gallery": "digits"},
        loss="cross_entropy",
        rho=recipe.rho,
        lr=recipe.lr,
        momentum=0.0,
        batch_size=len(dataset()),
    )
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def log_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_the_stuck_digits_are_rescued(work: Path, stuck: Path, run: Run) -> None:
    shutil.copy(stuck, "stuck.safetensors")
    before = digest(stuck)
    ran = run("treat", "stuck.safetensors", "--steps", "250")
    assert ran.code == 0, ran.err
    assert "RESCUED" in ran.out
    assert "saddle-attraction → descending" in ran.out
    assert digest(Path("stuck.safetensors")) == before
    lines = ran.err.splitlines()
    assert lines[0].startswith("round 1 of 5: saddle-attraction at loss 2.303: ")
    assert "250 steps" in lines[0]
    assert lines[1].startswith("  loss 2.303 → 0.")

    model = fresh_model()
    model.load_state_dict(load_file("stuck.treated.safetensors"))
    loss, right = evaluate(model, dataset())
    assert loss < 0.6
    assert right > 0.85
    first, one, *_, last = log = log_of("stuck.treated.jsonl")
    assert [line["event"] for line in log] == ["start", *["round"] * (len(log) - 2), "end"]
    assert first["fingerprint"] == f"sha256:{before}"
    assert one["verdict"] == "saddle-attraction"
    assert one["loss_before"] == pytest.approx(2.303, abs=0.01)
    assert one["steps"] == sum(phase["steps"] for phase in one["applied"])
    assert one["seconds"] > 0
    assert one["grad_norm"] == pytest.approx(0.014, rel=0.5)
    assert one["lambda_min"]["value"] == pytest.approx(-0.24, rel=0.1)
    assert last["after"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert last["after"]["verdict"] in HARMLESS
    assert last["outcome"] == "rescued"
    assert last["written"]["checkpoint"] == "stuck.treated.safetensors"

    again = run("inspect", "stuck.treated.safetensors", "--format", "json")  # its stamp says all that is needed
    assert again.code == 0, again.err
    assert again.report["verdict"] == last["after"]["verdict"]
    assert again.report["measurements"]["rho"] == last["recipe"]["rho"] != 2.0
    assert "samdiag sweep stuck.treated.safetensors" in ran.out

    state = torch.load("stuck.treated.optimizer.pt", weights_only=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.2
    assert optimizer.param_groups[0]["rho"] == last["recipe"]["rho"]


def test_nothing_to_treat_writes_nothing(near: Path, run: Run) -> None:
    save({"w": [0.0, 0.5]}, "slope.safetensors")
    before = sorted(os.listdir())
    ran = run("treat", "slope.safetensors", *WELLS[:-1], "0.01")
    assert ran.code == 0, ran.err
    assert "NOTHING TO TREAT  descending" in ran.out
    assert "no checkpoint: there is nothing to treat" in ran.out
    assert ran.err == ""
    assert sorted(os.listdir()) == before


def test_a_rescue_in_memory_and_in_the_file_are_one(near: Path, run: Run) -> None:
    before = digest(near)
    ran = run("treat", near, *WELLS)
    assert ran.code == 0, ran.err
    assert digest(near) == before
    new = load_file("near.treated.safetensors")
    assert new["w"].dtype == torch.float64
    assert abs(float(new["w"][1])) == pytest.approx(1.0, abs=0.05)
    assert "no stamp in the new file" in ran.out.replace("\n", " ")
    assert "(model and data as for the old file)" in ran.out
    again = run("treat", near, *WELLS)
    assert again.code == 0
    assert Path("near.treated-2.safetensors").exists()
    assert torch.equal(load_file("near.treated-2.safetensors")["w"], new["w"])


def test_a_critical_point_is_not_rescued_and_says_why(near: Path, run: Run) -> None:
    save({"w": [0.0, 0.0]}, "zero.safetensors")
    ran = run("treat", "zero.safetensors", *WELLS)
    assert ran.code == 1
    assert "NOT RESCUED" in ran.out
    assert "names no setting" in ran.out
    assert not Path("zero.treated.safetensors").exists()


@pytest.fixture
def prescribed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a schedule in the place of what would be prescribed."""
    real = advice.prescribe

    def set_to(*phases: Phase) -> None:
        made = Schedule(kind="constant", phases=phases, effect="", risk="", source="")
        monkeypatch.setattr(advice, "prescribe", lambda m, f: replace(real(m, f), schedule=made, alternatives=()))

    return set_to


def test_a_run_that_is_not_rescued_leaves_its_best_weights(
    near: Path, run: Run, prescribed: Callable[..., None]
) -> None:
    """Two plain steps a round lower x²/2 and leave the run captured at its rho of 0.5."""
    prescribed(Phase(steps=2, rho=0.0))
    ran = run("treat", near, *WELLS, "--rounds", "2")
    assert ran.code == 1, ran.out
    assert "The loss did not move (1.5e-4 → −2.1" in ran.out  # less than 1 % of the 0.25 that could go
    last = log_of("near.treated.jsonl")[-1]
    assert (last["outcome"], last["improved"]) == ("not rescued", True)
    assert last["recipe"]["rho"] == 0.5  # what it goes on with after plain steps
    found = load_file("near.treated.safetensors")["w"]
    assert found.tolist() == pytest.approx([0.02 * 0.9**4, 0.01 * 1.1**4], rel=1e-3)


def test_weights_that_are_not_better_are_not_written(near: Path, run: Run, prescribed: Callable[..., None]) -> None:
    prescribed(Phase(steps=10, rho=0.5))  # as before
    ran = run("treat", near, *WELLS, "--rounds", "2")
    assert ran.code == 1
    assert "The loss did not move" in ran.out
    assert "no checkpoint: no round lowered the loss" in ran.out
    assert not Path("near.treated.safetensors").exists()
    assert [line["event"] for line in log_of("near.treated.jsonl")] == ["start", "round", "round", "end"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--problem", "own.py:wells", "--rho", "0.5"), "the learning rate is not known"),
        ((*WELLS, "--out", "near.safetensors"), "near.safetensors exists already"),
        ((*WELLS, "--out", "taken.pt"), "taken.pt exists already"),
        ((*WELLS, "--log", "taken.pt"), "taken.pt exists already"),
        ((*WELLS, "--out", "new.bin"), "new.bin is no kind of checkpoint"),
        ((*WELLS, "--out", "nowhere/new.pt"), "cannot write nowhere/new.pt"),
        ((*WELLS, "--rounds", "0"), "--rounds 0 is no number of rounds"),
        ((*WELLS, "--steps", "0"), "--steps 0 is no number of steps"),
        ((*WELLS, "--rho", "small"), "--rho 'small' is not a number"),
        (("--lr", "0.1", "--rho", "0.5"), "nothing says which model"),
    ],
)
def test_mistakes_have_two_lines(near: Path, run: Run, arguments: tuple[str, ...], what: str) -> None:
    Path("taken.pt").touch()
    before = sorted(os.listdir())
    ran = run("treat", near, *arguments)
    assert ran.code == 2
    assert what in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) >= 2
    assert ran.out == ""
    assert sorted(os.listdir()) == before


def test_a_missing_file_is_named(work: Path, run: Run) -> None:
    ran = run("treat", "missing.safetensors", "--lr", "0.1")
    assert (ran.code, ran.out) == (2, "")
    assert "missing.safetensors does not exist" in ran.err


def test_weights_that_are_no_numbers_cannot_be_diagnosed(near: Path, run: Run) -> None:
    save({"w": [float("nan"), 0.0]}, "nan.safetensors")
    ran = run("treat", "nan.safetensors", *WELLS)
    assert (ran.code, ran.out) == (3, "")
    assert "not finite" in ran.err


def test_one_file_with_the_optimizer_is_read_by_inspect(near: Path, run: Run) -> None:
    ran = run("treat", near, *WELLS, "--momentum", "0.3", "--out", "new.pt", "--log", "course.jsonl")
    assert ran.code == 0, ran.err
    assert not Path("new.optimizer.pt").exists()
    last = log_of("course.jsonl")[-1]
    recipe = last["recipe"]
    found = open_checkpoint("new.pt")
    assert found.hints["sam.rho"].value == recipe["rho"]
    assert found.hints["sam.momentum"].value == recipe["momentum"]
    buffers = found.velocity()
    assert (buffers is None) == (recipe["momentum"] == 0)
    again = run("inspect", "new.pt", "--problem", "own.py:wells", "--format", "json")
    assert again.code == 0, again.err
    assert again.report["verdict"] == last["after"]["verdict"]
    assert again.report["settings"]["sam.lr"]["source"] == "optimizer state"


def test_the_momentum_of_the_old_file_is_carried_on(near: Path, run: Run) -> None:
    """One step from (0.02, 0.01) with v: x − lr(gamma·v + …): a large buffer shows in the new weights."""
    ends = []
    for name, speed in (("slow.pt", 0.0), ("fast.pt", 3.0)):
        point = nn.Module()
        point.w = nn.Parameter(torch.tensor([0.02, 0.01], dtype=torch.float64))
        optimizer = torch.optim.SGD(point.parameters(), lr=0.1, momentum=0.5)
        optimizer.state[point.w] = {"momentum_buffer": torch.tensor([0.0, speed], dtype=torch.float64)}
        torch.save({"model": point.state_dict(), "optimizer": optimizer.state_dict()}, name)
        ran = run("treat", name, *WELLS, "--rounds", "1", "--log", f"{name}.jsonl")
        assert ran.code in (0, 1), ran.err
        ends.append(log_of(f"{name}.jsonl")[1]["loss_after"])
    assert ends[0] != ends[1]


def test_a_full_disk_says_so_and_the_log_is_complete(near: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise CannotDecide("near.treated.safetensors cannot be written: No space left on device", "make room")

    monkeypatch.setattr(writing, "save_tensors", full)
    ran = run("treat", near, *WELLS)
    assert ran.code == 3
    assert "No space left on device" in ran.err
    assert "make room" in ran.err
    last = log_of("near.treated.jsonl")[-1]
    assert last["event"] == "end"
    assert last["failure"]["what"].endswith("No space left on device")
    assert last["written"]["checkpoint"] is None


def test_a_name_taken_meanwhile_loses_nothing(near: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another treatment of the same file was faster: its file stays, and this one's has another name."""
    real = advice.prescribe

    def prescribe(*arguments: Any) -> Any:
        Path("near.treated.safetensors").write_text("another's")
        if not Path("near.treated-2.jsonl").exists():
            Path("near.treated.jsonl").write_text("another's")
        return real(*arguments)

    monkeypatch.setattr(advice, "prescribe", prescribe)
    ran = run("treat", near, *WELLS)
    assert ran.code == 0, ran.err
    assert Path("near.treated.safetensors").read_text() == "another's"
    assert abs(float(load_file("near.treated-2.safetensors")["w"][1])) == pytest.approx(1.0, abs=0.05)
    assert Path("near.treated.jsonl").read_text() == "another's"
    assert log_of("near.treated-2.jsonl")[-1]["written"]["checkpoint"] == "near.treated-2.safetensors"
    assert "was written by something else meanwhile" in ran.out.replace("\n", " ")


def test_the_old_file_may_go_away_meanwhile(near: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training run that goes on writes its last.pt again: what was treated is what was read."""
    real = advice.prescribe

    def prescribe(*arguments: Any) -> Any:
        near.unlink(missing_ok=True)
        return real(*arguments)

    monkeypatch.setattr(advice, "prescribe", prescribe)
    ran = run("treat", near, *WELLS)
    assert ran.code == 0, ran.err
    assert abs(float(load_file("near.treated.safetensors")["w"][1])) == pytest.approx(1.0, abs=0.05)
    assert "not the one any more that was diagnosed" in ran.out.replace("\n", " ")


def test_an_error_after_the_steps_writes_them(near: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from samdiag.measure import measuring

    real, calls = measuring.measuring, []

    def measure(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise CannotDecide("out of memory", "use fewer samples")
        return real(*arguments)

    monkeypatch.setattr(measuring, "measuring", measure)
    ran = run("treat", near, *WELLS)
    assert ran.code == 3
    assert "FAILED" in ran.out
    assert "out of memory" in ran.err
    assert abs(float(load_file("near.treated.safetensors")["w"][1])) > 0.5
    assert log_of("near.treated.jsonl")[-1]["failure"]["what"] == "out of memory"


def test_hostile_names_are_spelled_out(near: Path, run: Run) -> None:
    name = "a\x1b[31m\u202eb.safetensors"
    shutil.copy(near, name)
    ran = run("treat", name, *WELLS)
    assert ran.code == 0, ran.err
    assert "\x1b[31m" not in ran.out + ran.err
    assert "\u202e" not in ran.out + ran.err
    assert r"a\x1b[31m\u202eb.safetensors" in ran.out
    assert Path("a\x1b[31m\u202eb.treated.safetensors").exists()


def test_samples_limit_the_steps_and_are_said(work: Path, stuck: Path, run: Run) -> None:
    shutil.copy(stuck, "stuck.safetensors")
    ran = run("treat", "stuck.safetensors", "--steps", "20", "--rounds", "1", "--samples", "224", "--batch-size", "64")
    assert ran.code in (0, 1), ran.err
    log = log_of("stuck.treated.jsonl")
    assert log[0]["samples"] == 224
    assert log[-1]["num_samples"] == 224
    assert log[1]["before"]["batch_size"] == 64
    assert any("--samples limits them" in note for note in log[-1]["notes"])
    assert "--samples limits them" in ran.out.replace("\n", " ")


def test_quiet_says_less(near: Path, run: Run) -> None:
    ran = run("treat", near, *WELLS, "-q", "--out", "one.pt")
    assert (ran.code, ran.err) == (0, "")
    assert "RESCUED" in ran.out
    ran = run("treat", near, *WELLS, "-qq", "--out", "two.pt")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interruption_keeps_what_was_done(near: Path, times: int) -> None:
    """Ctrl-C in the steps, or twice from an impatient hand: the steps so far are written, and the log ends properly."""
    command = [sys.executable, "-c", CALL, "treat", str(near), *WELLS, "--steps", "100000000"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        line = child.stderr.readline()
        assert line.startswith("round 1 of 5: saddle-attraction")
        time.sleep(0.5)  # the problem is opened within milliseconds
        for _ in range(times):
            interrupt(child)
            time.sleep(0.002)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    ran = Ran(code=child.returncode, out=out, err=line + err)
    assert ran.code == 130, ran.err
    assert "Traceback" not in ran.err
    assert "INTERRUPTED" in ran.out
    assert "samdiag treat near.treated.safetensors" in ran.out
    log = log_of("near.treated.jsonl")
    assert log[1]["note"] == "ended early in the steps: interrupted"
    assert log[-1]["outcome"] == "interrupted"
    assert abs(float(load_file("near.treated.safetensors")["w"][1])) > 0.02


def test_an_interruption_before_the_first_round_writes_nothing(
    near: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samdiag.measure import measuring

    def measure(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "measuring", measure)
    before = sorted(os.listdir())
    ran = run("treat", near, *WELLS)
    assert (ran.code, ran.out) == (130, "")
    assert "interrupted before anything was written" in ran.err
    assert sorted(os.listdir()) == before
