"""The baseline's file: its text, what is refused, and that it is replaced whole."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from samdiag.errors import CannotDecide, UsageError
from samdiag.gates import (
    Baseline,
    Gate,
    Known,
    KnownFinding,
    KnownNumber,
    load_baseline,
    parse_fail_on,
    parse_requirements,
    update_baseline,
)
from samdiag.gates.baseline import required_number
from samdiag.gates.baseline_file import render
from samdiag.gates.requiring import answers
from samdiag.types import CheckpointInfo, Diagnosis, Severity
from tests.reports.samples import HOSTILE_TEXT, diagnosis, est, measurements

TEXT = """{
  "checkpoints": {
    "a.safetensors": {
      "findings": {
        "saddle-attraction": {"number": {"error": 0.11, "name": "lambda_min", "value": -2.31}, "severity": "error"}
      },
      "requirements": {
        "lambda_max < 5": {"error": 0.022, "name": "lambda_max", "value": 9.42}
      },
      "settings": {
        "model": {"timm": "resnet18"},
        "sam.rho": 0.5
      },
      "verdict": "saddle-attraction"
    }
  },
  "samdiag_baseline": 1
}
"""
KNOWN = Known(
    verdict="saddle-attraction",
    settings={"sam.rho": 0.5, "model": {"timm": "resnet18"}},
    findings={
        "saddle-attraction": KnownFinding(
            severity=Severity.ERROR, number=KnownNumber(name="lambda_min", value=-2.31, error=0.11)
        )
    },
    requirements={"lambda_max < 5": KnownNumber(name="lambda_max", value=9.42, error=0.022)},
)


def test_the_text_is_sorted_and_one_line_for_each_thing(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    update_baseline(file, {"a.safetensors": KNOWN})
    assert file.read_text() == TEXT
    assert load_baseline(file).checkpoints == {"a.safetensors": KNOWN}
    update_baseline(file, {})
    assert file.read_text() == TEXT


def test_one_changed_checkpoint_changes_its_own_lines_alone(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    update_baseline(file, {f"{name}.safetensors": KNOWN for name in "abc"})
    before = file.read_text().splitlines()
    update_baseline(file, {"b.safetensors": dataclasses.replace(KNOWN, verdict="bounce")})
    changed = [new for old, new in zip(before, file.read_text().splitlines(), strict=True) if old != new]
    assert changed == ['      "verdict": "bounce"']


def test_what_was_not_inspected_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    update_baseline(file, {"a": KNOWN, "b": KNOWN})
    merged = update_baseline(file, {"c": KNOWN})
    assert set(merged.checkpoints) == {"a", "b", "c"} == set(load_baseline(file).checkpoints)


def renamed(path: str, **changes: Any) -> Diagnosis:
    return diagnosis("saddle-attraction", checkpoint=CheckpointInfo(path=path), measurements=measurements(**changes))


def test_what_is_written_accepts_what_it_was_written_from(tmp_path: Path) -> None:
    """Six digits of a value and two of an error must not make an equal number worse."""
    file = tmp_path / "base.json"
    subjects = [
        renamed(str(tmp_path / f"{i}.safetensors"), lambda_min=est(-math.pi / 10**i), loss=est(math.e / 10**i))
        for i in range(6)
    ]
    gate = Gate(requirements=parse_requirements("loss < 0"), baseline=load_baseline(file, missing_ok=True))
    for subject in subjects:
        update_baseline(file, gate.noted(subject))
    again = dataclasses.replace(gate, baseline=load_baseline(file))
    for subject in subjects:
        outcome = again.judge(subject)
        assert (outcome.exit_code, len(outcome.accepted)) == (0, 2)


def test_every_number_and_name_survives(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    odd = Known(
        verdict=HOSTILE_TEXT,
        settings={HOSTILE_TEXT: [HOSTILE_TEXT, None, {"x": 1}]},
        findings={"bounce": KnownFinding(severity=Severity.INFO)},
        requirements={"loss < inf": KnownNumber(name="loss", value=math.inf, error=math.inf)},
    )
    update_baseline(file, {f"runs/{HOSTILE_TEXT}#seed=1": odd})
    assert file.read_bytes().isascii()
    assert load_baseline(file).checkpoints == {f"runs/{HOSTILE_TEXT}#seed=1": odd}


def test_errors_are_rounded_up() -> None:
    requirement = parse_requirements("loss < 0")[0]
    (answer,) = answers(renamed("a", loss=est(1.23456789, 0.0123001)), requirement)
    assert required_number(answer) == KnownNumber(name="loss", value=1.23457, error=0.013)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is not JSON"),
        (b"[]", "it has no 'samdiag_baseline'"),
        (b'{"a": 1}', "it has no 'samdiag_baseline'"),
        (b"[" * 100_000, "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b"<<<<<<< HEAD\n{}\n=======\n>>>>>>> x\n", "it has a merge conflict"),
        (b'{"samdiag_baseline": 1}', "is not a baseline: "),
        (b'{"samdiag_baseline": 1, "checkpoints": {"a": {"verdict": 3}}}', "a.verdict"),
        (b'{"samdiag_baseline": 2, "checkpoints": {}}', "has format version 2; this samdiag reads 1"),
        (b'{"samdiag_baseline": "\\u001b[2J", "checkpoints": {}}', "\\x1b[2J"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused_and_left_alone(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(content)
    for action in (lambda: load_baseline(file, missing_ok=True), lambda: update_baseline(file, {"a": KNOWN})):
        with pytest.raises(UsageError) as caught:
            action()
        assert why in caught.value.what
        assert (caught.value.what + caught.value.todo).isprintable()
    assert file.read_bytes() == content


def test_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    with pytest.raises(UsageError) as caught:
        load_baseline(file)
    assert "does not exist" in caught.value.what
    assert "--update-baseline" in caught.value.todo
    assert load_baseline(file, missing_ok=True) == Baseline(folder=tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_baseline(tmp_path)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "base.json"
    update_baseline(file, {"a": KNOWN})
    before = file.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotDecide, match="No space left"):
        update_baseline(file, {"b": KNOWN})
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["base.json"]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "base.json", tmp_path / "link.json"
    update_baseline(file, {"a": KNOWN})
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    file.chmod(0o640)
    link.symlink_to(file)
    update_baseline(link, {"b": KNOWN})
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert set(load_baseline(file).checkpoints) == {"a", "b"}


def test_the_file_is_plain_json() -> None:
    document = json.loads(render(Baseline(folder=Path("/"), checkpoints={"a": KNOWN})))
    assert document["samdiag_baseline"] == 1
    assert parse_fail_on(list(document["checkpoints"]["a"]["findings"])).verdicts == {"saddle-attraction"}
