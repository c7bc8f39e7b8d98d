"""`samdiag inspect --verify`: what is tried, what it costs, and that the checkpoint stays as it is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from samdiag.gallery.digits_experiment import save_run, trained
from samdiag.gallery.digits_runs import RUNS, fresh_model
from samdiag.probes import Comparison, Probe
from samdiag.reports.probe import tried_model
from samdiag.types import Confidence, Finding, Severity

from .conftest import HONEST, network, save

SADDLE = ("--problem", "problems.py:saddle", "--rho", "0.5", "--lr", "0.02")


@pytest.fixture
def trapped(work: Path) -> Path:
    """f = x² − y² + y⁴ close to its saddle at 0, inside the radius that captures; SGD leaves for a well at −1/4."""
    return save({"w": [1e-3, 1e-3]}, work / "trapped.safetensors")


def test_the_report_shows_what_was_tried(inspect, trapped: Path) -> None:
    ran = inspect(trapped, *SADDLE, "--verify", "--steps", "400")
    assert ran.code == 1
    shown = ran.out.partition("Tried")[2].partition("Why")[0]
    assert "400 steps from the checkpoint, in memory" in shown
    assert "as configured" in shown
    assert "✔ SAM as configured (saddle-attraction): predicted stays, where SGD leaves" in shown
    assert "✔ what the prescription changes" in shown
    assert "→ −0.25" in shown  # SGD reaches the well


def test_json_has_the_probe_and_stderr_its_cost(inspect, valid, trapped: Path) -> None:
    ran = inspect(trapped, *SADDLE, "--verify", "--steps", "30", "--format", "json")
    valid(ran.report)
    probe = ran.report["probe"]
    assert [run["name"] for run in probe["runs"]] == ["as configured", "SGD", "as prescribed"]
    assert probe["steps"] == 30
    assert ran.err.count("verify: 3 settings × 1 replicate × 30 steps") == 1
    assert "probe" in ran.report["timings"]


def test_without_the_flag_nothing_is_tried(inspect, trapped: Path) -> None:
    ran = inspect(trapped, *SADDLE, "--format", "json")
    assert ran.report["probe"] is None
    assert "verify" not in ran.err


def test_quiet_says_no_cost(inspect, trapped: Path) -> None:
    ran = inspect(trapped, *SADDLE, "--verify", "--steps", "5", "-q")
    assert "Tried" in ran.out
    assert ran.err == ""


def test_a_budget_ends_it(inspect, trapped: Path) -> None:
    ran = inspect(trapped, *SADDLE, "--verify", "--steps", "1000000", "--budget", "0.3s", "--format", "json")
    probe = ran.report["probe"]
    assert probe["steps"] < probe["asked_steps"] == 1_000_000
    assert probe["budget"] == 0.3
    assert "the 0.3 s allowed are enough for no more" in ran.err


def test_the_checkpoint_is_not_touched(inspect, trapped: Path) -> None:
    def seen() -> tuple[str, int, list[str]]:
        digest = hashlib.sha256(trapped.read_bytes()).hexdigest()
        return digest, trapped.stat().st_mtime_ns, sorted(p.name for p in trapped.parent.iterdir())

    before = seen()
    inspect(trapped, *SADDLE, "--verify", "--steps", "20")
    assert seen() == before


@pytest.mark.parametrize(
    ("flags", "what", "todo"),
    [
        (("--steps", "10"), "--steps is for --verify", "add --verify"),
        (("--budget", "5s"), "--budget is for --verify", "add --verify"),
        (("--verify", "--steps", "0"), "--steps 0 is no number of steps", "--steps 200"),
        (("--verify", "--budget", "soon"), "--budget 'soon' is not a duration", "90s"),
        (("--verify", "--budget", "0"), "--budget '0' is not a duration", "90s"),
    ],
)
def test_flags_that_make_no_sense(inspect, work: Path, flags: tuple[str, ...], what: str, todo: str) -> None:
    ran = inspect("runs/a.safetensors", *HONEST, *flags)
    assert ran.code == 2
    assert what in ran.err
    assert todo in ran.err
    assert ran.out == ""


def test_an_unknown_learning_rate(inspect, work: Path) -> None:
    ran = inspect("runs/a.safetensors", *HONEST, "--verify")
    assert ran.code == 2
    assert "the learning rate is not known" in ran.err
    assert "--lr" in ran.err


@pytest.mark.parametrize("fits", [True, False])
def test_momentum_comes_from_the_file(inspect, work: Path, fits: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(4, 2)).square().mean().backward()
    optimizer.step()
    state = optimizer.state_dict()
    if not fits:
        state["state"][0]["momentum_buffer"] = torch.zeros(7)
    torch.save({"model": model.state_dict(), "optimizer": state}, work / "a.pt")
    ran = inspect("a.pt", *HONEST, "--verify", "--steps", "5", "--format", "json")
    probe = ran.report["probe"]
    assert probe["momentum_from_file"] is fits
    assert any("other shapes" in note for note in probe["notes"]) is not fits


def test_an_adam_checkpoint_is_tried_with_sgd_and_says_so(inspect, work: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(4, 2)).square().mean().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, work / "a.pt")
    report = inspect("a.pt", *HONEST, "--verify", "--steps", "5", "--format", "json").report
    assert any("Adam family" in note for note in report["probe"]["notes"])
    assert not any(finding["contradicted"] for finding in report["findings"])


@pytest.mark.parametrize("gate", [(), ("--fail-on", "saddle-attraction"), ("--fail-on", "any")])
def test_a_wrong_verdict_falls(inspect, work: Path, monkeypatch: pytest.MonkeyPatch, gate: tuple[str, ...]) -> None:
    """A judge that calls an honest network stuck: SAM as configured goes down as SGD does, and says otherwise."""
    wrong = Finding(
        verdict="saddle-attraction",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        evidence={},
        message="stuck, it says.",
        source="nobody",
    )
    monkeypatch.setattr("samdiag.verdicts.judge_all", lambda _m: (wrong,))
    arguments = ("runs/a.safetensors", *HONEST, "--lr", "0.5", *gate)
    assert inspect(*arguments).code == 1
    ran = inspect(*arguments, "--verify", "--steps", "300", "--format", "json")
    assert ran.code == (1 if "any" in gate else 3)  # `undecided` is a warning, which `any` lists; else a gap
    report = ran.report
    assert report["verdict"] == "undecided"
    assert [f["verdict"] for f in report["findings"]] == ["undecided", "saddle-attraction"]
    assert [f["contradicted"] for f in report["findings"]] == [False, True]
    assert report["prescription"]["rho"]["recommended"] is None  # of the verdict that is left, not of the fallen one
    assert report["probe"]["comparisons"][0]["agrees"] is False
    shown = inspect(*arguments, "--verify", "--steps", "300").out
    assert "UNDECIDED" in shown
    assert "✖ SAM as configured (saddle-attraction)" in shown
    assert "But the test says" in shown


def test_a_prescription_for_another_verdict_was_not_tried(
    inspect, trapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("trapped.safetensors", *SADDLE, "--verify", "--steps", "5", "--format", "json")
    note = "what is prescribed is for the verdict after the test: it has not been tried itself"
    assert note not in inspect(*arguments).report["probe"]["notes"]
    monkeypatch.setattr(
        "samdiag.verdicts.verified.confirm",
        lambda findings, _probe, _m: (replace(findings[0], verdict="convergence-floor"), *findings[1:]),
    )
    report = inspect(*arguments).report
    assert report["prescription"]["schedule"]["kind"] == "rho-decay"
    assert note in report["probe"]["notes"]


def test_where_memory_runs_out_the_diagnosis_stays(inspect, trapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    before = inspect(trapped, *SADDLE, "--format", "json").report
    monkeypatch.setattr("samdiag.measure.probe.run_probe", full)
    after = inspect(trapped, *SADDLE, "--verify", "--format", "json").report
    assert after["verdict"] == before["verdict"]
    assert after["findings"] == before["findings"]
    assert after["probe"] is None
    assert any("out of memory" in warning for warning in after["warnings"])


def test_steps_in_the_environment_wait_for_the_flag(inspect, trapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMDIAG_STEPS", "7")
    assert inspect(trapped, *SADDLE).code == 1
    assert inspect(trapped, *SADDLE, "--verify", "--format", "json").report["probe"]["steps"] == 7


def test_text_from_outside_is_made_printable(inspect, trapped: Path) -> None:
    ran = inspect(trapped, *SADDLE, "--verify", "--steps", "3", "--format", "json")
    assert ran.report["probe"]["comparisons"]
    hostile = "\x1b[31m\nred"
    row = Comparison(what=hostile, predicted=hostile, observed=hostile, agrees=None)
    empty = Probe(
        runs=(),
        steps=0,
        asked_steps=0,
        replicates=1,
        num_samples=1,
        momentum_from_file=False,
        seconds=0.0,
        budget=None,
        comparisons=(row,),
        notes=(hostile,),
    )
    model = tried_model(empty)
    texts = [model.comparisons[0].what, model.comparisons[0].predicted, model.comparisons[0].observed, *model.notes]
    assert texts == [r"\x1b[31m\nred"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stuck", "healthy"])
def test_the_digits(inspect, work: Path, name: str) -> None:
    """The demo's checkpoints: the stuck one stays as configured, SGD and the prescription leave; the healthy one goes
    on.
    """
    run = trained(name, fresh_model(0), replace(RUNS[name]), lambda _line: None)
    path = save_run(run, work / f"{name}.safetensors")
    probe: dict[str, Any] = inspect(path, "--verify", "--format", "json").report["probe"]
    runs = {run["name"]: run for run in probe["runs"]}
    if name == "healthy":
        assert set(runs) == {"as configured", "SGD"}
        assert runs["as configured"]["gain"] == pytest.approx(runs["SGD"]["gain"], rel=0.1)
    else:
        assert runs["as configured"]["escapes"] == [None]
        assert abs(runs["as configured"]["gain"]) < 0.01
        assert runs["SGD"]["escapes"][0] is not None
        assert runs["as prescribed"]["escapes"][0] is not None
        assert runs["as prescribed"]["gain"] > 0.3
    assert all(row["agrees"] for row in probe["comparisons"])
