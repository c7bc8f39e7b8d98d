from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
import xmlschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samdiag.outcomes import Outcome
from samdiag.reports import junit
from tests.hostile.printing import PRINTED

from .fleet_samples import at, fleet, hostile_outcomes
from .samples import every_kind
from .snapshot import matches

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).parents[1] / "data" / "junit-10.xsd"))
ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)


def suite(text: str) -> Element:
    """The suite of a valid document."""
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text.encode())
    (found,) = root
    return found


def test_snapshot() -> None:
    assert matches("fleet.xml", junit.render(fleet(), missing=2))


def test_a_hit_fails_and_a_gap_is_an_error() -> None:
    found = suite(junit.render(fleet()))
    kinds = [[child.tag for child in case] for case in found.findall("testcase")]
    passed = ["system-out"]
    assert kinds == [
        passed, passed, ["failure", "system-out"], *[["error", "system-out"]] * 3, passed, passed
    ]  # fmt: skip
    assert (found.get("tests"), found.get("failures"), found.get("errors"), found.get("skipped")) == (
        "8",
        "1",
        "3",
        "0",
    )
    assert found.get("time") == "268.800"


def test_each_checkpoint_and_seed_has_a_name_of_its_own() -> None:
    names = [case.get("name") for case in suite(junit.render(fleet())).findall("testcase")]
    assert len(set(names)) == len(names)
    assert names[-2:] == ["runs/実験/final.safetensors", "runs/実験/final.safetensors (seed 1)"]


def test_the_settings_and_versions_are_properties() -> None:
    properties = {p.get("name"): p.get("value") for p in suite(junit.render(fleet())).iter("property")}
    assert properties["samdiag"] == "0.1.0"
    assert properties["torch"] == "2.10.0"
    assert properties["rho"] == "0.5 (command line)"


def test_an_interrupted_run_is_no_pass() -> None:
    found = suite(junit.render(fleet()[:1], missing=3))
    assert (found.get("tests"), found.get("errors")) == ("2", "1")
    assert found.findall("testcase")[-1].find("error").get("message") == "stopped with 3 checkpoints left"  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", every_kind())
@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_every_kind_is_valid(kind: str, code: int) -> None:
    found = suite(junit.render([Outcome(diagnosis=every_kind()[kind], exit_code=code)]))
    assert len(found.findall("testcase")) == 1


def test_nothing_is_valid_too() -> None:
    assert suite(junit.render([])).get("tests") == "0"


@pytest.mark.parametrize("payload", PRINTED.values(), ids=PRINTED)
def test_hostile_text_breaks_no_document(payload: str) -> None:
    found = suite(junit.render(hostile_outcomes(payload)))
    assert len(found.findall("testcase")) == 4
    hidden = {c for text in found.itertext() for c in text if c != "\n" and not c.isprintable()}
    assert not hidden


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(ANY_TEXT | st.text(alphabet="<>&\"']]>-!\x00\x0b\x1f\ufffe\uffff\ud800\x85 a", max_size=30))
def test_any_text_is_valid(text: str) -> None:
    root = ElementTree.fromstring(junit.render(hostile_outcomes(text)).encode())
    assert len(root.findall(".//testcase")) == 4
    SCHEMA.validate(junit.render([Outcome(diagnosis=at(text or "x"), exit_code=0)]))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300, 0.0, 1234.5])
def test_a_time_is_a_time(seconds: float) -> None:
    found = suite(junit.render([Outcome(diagnosis=at("a.pt", timings={"total": seconds}), exit_code=0)]))
    assert found.get("time") == ("1234.500" if seconds == 1234.5 else "0" if seconds else "0.000")
