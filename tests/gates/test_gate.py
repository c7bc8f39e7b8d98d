"""The whole gate: whose it is, what outranks what, --strict-spec, and saved reports."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from samdiag.errors import UsageError
from samdiag.gates import (
    Gate,
    exit_code_of,
    gate_of,
    load_baseline,
    parse_fail_on,
    parse_requirements,
    spec_lines,
    untrusted,
    update_baseline,
)
from samdiag.outcomes import HitKind, Outcome
from samdiag.records import parse_record, read_records
from samdiag.reports import json_lines
from samdiag.types import Diagnosis, Setting, Trust
from tests.reports.samples import HOSTILE_TEXT, diagnosis, failed, unbounded


def set_(subject: Diagnosis, trust: Trust = Trust.PROJECT, **values: Any) -> Diagnosis:
    """With settings, `gate__fail_on` for `gate.fail_on`."""
    said = {
        name.replace("__", "."): Setting(value=value, source="a source", trust=trust) for name, value in values.items()
    }
    return dataclasses.replace(subject, settings={**subject.settings, **said})


PLAIN = dataclasses.replace(diagnosis("bounce"), settings={})


def test_the_project_says_the_gate() -> None:
    said = set_(PLAIN, gate__fail_on=["bounce"], gate__require=["loss < 1"], gate__strict_spec=True)
    gate = gate_of(said)
    assert gate == Gate(fail_on=parse_fail_on("bounce"), requirements=parse_requirements("loss < 1"), strict_spec=True)
    assert gate_of(PLAIN) == Gate()
    assert gate_of(set_(PLAIN, gate__fail_on=None, gate__require=None)) == Gate()


def test_the_command_line_is_nearer() -> None:
    said = set_(PLAIN, gate__fail_on=["bounce"], gate__require=["loss < 1"], gate__strict_spec=True)
    gate = gate_of(said, fail_on="never", require=["loss < 2"], strict_spec=False)
    assert gate == Gate(fail_on=parse_fail_on("never"), requirements=parse_requirements("loss < 2"))
    assert gate_of(said, require=[]).requirements == parse_requirements("loss < 1")


def test_mistakes_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="--require"):
        gate_of(PLAIN, require=["los < 1"])
    with pytest.raises(UsageError, match="--fail-on"):
        gate_of(PLAIN, fail_on="bounse")


def outcome(**arguments: Any) -> Outcome:
    return gate_of(PLAIN, **arguments).judge(PLAIN)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, 0),
        ({"fail_on": "any"}, 1),
        ({"require": ["loss < 9"]}, 0),
        ({"require": ["loss < 1"]}, 1),
        ({"require": ["loss < 1.2"]}, 3),
        ({"require": ["loss < 1.2"], "fail_on": "any"}, 1),
        ({"require": ["loss < 1.2", "loss < 1"]}, 1),
        ({"require": ["loss < 1"], "fail_on": "never"}, 1),
    ],
)
def test_1_outranks_3_outranks_0(arguments: dict[str, Any], code: int) -> None:
    assert outcome(**arguments).exit_code == code


@pytest.mark.parametrize(
    ("codes", "whole"),
    [([], 3), ([0], 0), ([0, 3], 3), ([0, 1, 3, 2], 1), ([2, 2], 2), ([0, 2], 3), ([2, 3], 3)],
)
def test_of_several(codes: list[int], whole: int) -> None:
    assert exit_code_of(Outcome(diagnosis=PLAIN, exit_code=code) for code in codes) == whole


# ---------------------------------------------------------------- --strict-spec

STAMPED = set_(PLAIN, Trust.ARTIFACT, model={"timm": "x"}, sam__rho=0.05, sam__lr=0.1)


def test_a_checkpoints_own_word_is_a_gap() -> None:
    assert gate_of(STAMPED).judge(STAMPED).exit_code == 0
    found = gate_of(STAMPED, strict_spec=True).judge(STAMPED)
    assert (found.exit_code, found.hits) == (3, ())
    (gap,) = found.gaps
    assert (gap.kind, gap.name) == (HitKind.SPEC, "trust")
    what, todo = spec_lines(STAMPED.settings) or ("", "")
    assert what == "the checkpoint itself says what it is judged by: model, sam.rho = 0.05, sam.lr = 0.1 (a source)"
    assert todo == "say it yourself: in your samdiag.toml, or with --model --rho --lr"
    assert gap.message == f"{what}; {todo}"
    assert gate_of(STAMPED, strict_spec=True, fail_on="any").judge(STAMPED).exit_code == 1


@pytest.mark.parametrize("trust", [Trust.CLI, Trust.PROJECT, Trust.DEFAULT])
def test_the_users_word_and_defaults_are_taken(trust: Trust) -> None:
    subject = set_(PLAIN, trust, model={"timm": "x"}, sam__rho=0.05)
    found = gate_of(subject, strict_spec=True).judge(subject)
    assert (found.exit_code, found.gaps) == (0, ())
    assert spec_lines(subject.settings) is None


def test_only_what_is_judged_counts() -> None:
    assert untrusted(set_(PLAIN, Trust.ARTIFACT, loss="mse", data="d", problem="p", other=1).settings) == (
        "problem",
        "data",
        "loss",
    )


def test_hostile_values_stay_on_one_line() -> None:
    subject = set_(PLAIN, Trust.ARTIFACT, model={"timm": HOSTILE_TEXT}, loss=HOSTILE_TEXT)
    found = gate_of(subject, strict_spec=True).judge(subject)
    assert [gap.message.isprintable() for gap in found.gaps] == [True]


def test_the_baseline_does_not_accept_a_checkpoints_own_word(tmp_path: Path) -> None:
    gate = gate_of(STAMPED, strict_spec=True, baseline=load_baseline(tmp_path / "b.json", missing_ok=True))
    assert gate.judge_updated(STAMPED).exit_code == 3


# ---------------------------------------------------------------- saved reports

EVERY_KIND = [diagnosis("saddle-attraction"), diagnosis("undecided"), unbounded(), failed(2), failed(3), STAMPED]


@pytest.mark.parametrize("subject", EVERY_KIND)
def test_a_saved_report_is_judged_as_the_live_one(subject: Diagnosis, tmp_path: Path) -> None:
    saved = parse_record(json_lines.render(subject), "a test")
    base = load_baseline(tmp_path / "b.json", missing_ok=True)
    asked: dict[str, Any] = {"fail_on": "any", "require": ["lambda_max < 9", "loss < 2"], "strict_spec": True}
    live, again = (gate_of(d, baseline=base, **asked) for d in (subject, saved))
    assert live == again
    assert live.noted(subject) == again.noted(saved)
    one, other = live.judge(subject), again.judge(saved)
    assert (one.exit_code, one.hits, one.gaps, one.accepted) == (
        other.exit_code, other.hits, other.gaps, other.accepted,
    )  # fmt: skip


def test_a_file_of_saved_reports_against_a_baseline(tmp_path: Path) -> None:
    file, reports = tmp_path / "base.json", tmp_path / "out.jsonl"
    reports.write_text("".join(f"{json_lines.render(d).rstrip()}\n" for d in EVERY_KIND[:2]))
    base = load_baseline(file, missing_ok=True)
    notes: dict[str, Any] = {}
    for saved in read_records(reports):
        notes |= gate_of(saved, baseline=base).noted(saved)
    base = update_baseline(file, notes)
    outcomes = [gate_of(d, baseline=base).judge(d) for d in read_records(reports)]
    # both are of one path: the later one is what is known, and its verdict is not the first one's
    assert [one.exit_code for one in outcomes] == [1, 3]
    assert exit_code_of(outcomes) == 1


def test_an_undecided_finding_behind_a_milder_one_leaves_the_gate_open() -> None:
    """A spectrum that was cut short shows a bounce and rules no saddle out: not a pass."""
    from dataclasses import replace

    from samdiag.gates import Gate
    from tests.gates.test_fail_on import diagnosis, finding

    both = diagnosis("bounce", findings=(finding("bounce"), finding("undecided")))
    assert Gate().judge(both).exit_code == 3
    assert Gate(fail_on=parse_fail_on("bounce")).judge(both).exit_code == 1
    contradicted = replace(both.findings[1], contradicted=True)
    assert Gate().judge(replace(both, findings=(both.findings[0], contradicted))).exit_code == 0
