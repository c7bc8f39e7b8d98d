from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from samdiag.outcomes import Outcome
from samdiag.reports import sarif
from tests.hostile.printing import PRINTED

from .fleet_samples import at, fleet, hostile_outcomes
from .samples import every_kind, finding
from .snapshot import matches

SCHEMA = Draft4Validator(
    json.loads((Path(__file__).parents[1] / "data" / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
)


def run(text: str) -> dict[str, Any]:
    """The run of a valid log."""
    document = json.loads(text)
    SCHEMA.validate(document)
    (found,) = document["runs"]
    for result in found["results"]:
        assert found["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return dict(found)


def test_snapshot() -> None:
    assert matches("fleet.sarif", sarif.render(fleet(), missing=2))


def test_findings_are_results_and_failures_notifications() -> None:
    found = run(sarif.render(fleet()))
    named = [(r["ruleId"], r["level"], "suppressions" in r) for r in found["results"]]
    assert named == [
        ("bounce", "warning", True),
        ("saddle-attraction", "error", False),
        ("spec", "error", False),
        ("requirement", "warning", False),
        ("undecided", "warning", False),
    ]
    notes = found["invocations"][0]["toolExecutionNotifications"]
    assert [note["level"] for note in notes] == ["error"]
    assert found["invocations"][0]["executionSuccessful"] is False


def test_a_rule_names_its_theorem() -> None:
    rules = {rule["id"]: rule for rule in run(sarif.render(fleet()))["tool"]["driver"]["rules"]}
    assert "Theorem 1" in rules["saddle-attraction"]["help"]["text"]


def test_what_a_test_of_the_run_contradicts_is_no_result() -> None:
    contradicted = at("a.pt", "bounce", findings=(finding("bounce", contradicted=True),))
    assert run(sarif.render([Outcome(diagnosis=contradicted, exit_code=0)]))["results"] == []


@pytest.mark.parametrize("kind", every_kind())
def test_every_kind_is_valid(kind: str) -> None:
    run(sarif.render([Outcome(diagnosis=every_kind()[kind], exit_code=0)]))


def test_nothing_is_valid_too() -> None:
    assert run(sarif.render([]))["results"] == []


@pytest.mark.parametrize("payload", PRINTED.values(), ids=PRINTED)
def test_hostile_text_is_valid(payload: str) -> None:
    text = sarif.render(hostile_outcomes(payload))
    assert text.isascii()
    assert all(result["ruleId"].isprintable() for result in run(text)["results"])


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(st.text(st.characters(codec=None, categories=None), min_size=1, max_size=30))
def test_a_path_is_an_address_that_leads_back(path: str) -> None:
    text = sarif.render([Outcome(diagnosis=at(path, "bounce"), exit_code=0)])
    (result,) = json.loads(text)["runs"][0]["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri.isascii()
    assert not set(uri) & set(" :?#\\<>")
    assert unquote_to_bytes(uri).decode("utf-8", "surrogatepass") == path
