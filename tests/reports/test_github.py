from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.reports import github
from samdiag.reports.escape import printable
from tests.hostile.printing import PRINTED

from .fleet_samples import fleet, hostile_outcomes
from .snapshot import matches

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)
NASTY = st.text(alphabet="%:,=;\r\n0123456789ADadx \\", max_size=30)
LEVELS = {"error", "warning", "notice"}


def read(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as the runner takes it apart: level, properties, message."""
    found = re.fullmatch(r"::(\w+)(?: ([^:]*(?::[^:]+)*))?::(.*)", line)
    assert found is not None, line
    properties = {}
    for part in (found[2] or "").split(","):
        if part:
            name, _, value = part.partition("=")
            properties[name] = unescape(value, (":", "%3A"), (",", "%2C"))
    return found[1], properties, unescape(found[3])


def unescape(text: str, *more: tuple[str, str]) -> str:
    for character, code in (("\r", "%0D"), ("\n", "%0A"), *more, ("%", "%25")):
        text = text.replace(code, character)
    return text


def test_snapshot() -> None:
    assert matches("fleet.github.txt", github.render(fleet(), missing=2))


def test_the_worst_comes_first_and_the_outcome_last() -> None:
    lines = [read(line) for line in github.render(fleet()).split("\n")]
    assert [level for level, _, _ in lines] == [*["error"] * 2, *["warning"] * 2, "error", *["notice"] * 2]
    assert lines[0][1] == {
        "file": "runs/cifar10/epoch_20.pt",
        "title": "runs/cifar10/epoch_20.pt: saddle-attraction",
    }
    assert lines[-1][2].startswith("1 of 8 checkpoints fails the gate")


@given(ANY_TEXT | NASTY, ANY_TEXT | NASTY, ANY_TEXT | NASTY)
def test_a_command_is_read_back_as_it_was_meant(message: str, file: str, title: str) -> None:
    line = github.command("error", message, file=file, title=title)
    assert len(line.splitlines()) == 1
    level, properties, said = read(line)
    assert level == "error"
    assert properties == {k: printable(v) for k, v in (("file", file), ("title", title)) if v}
    assert said == printable(message)


@pytest.mark.parametrize("payload", PRINTED.values(), ids=PRINTED)
def test_hostile_text_forges_no_command(payload: str) -> None:
    lines = github.render(hostile_outcomes(payload)).split("\n")
    assert len(lines) == len(github.render(hostile_outcomes("x")).split("\n"))
    for line in lines:
        level, properties, _ = read(line)
        assert level in LEVELS
        assert properties.keys() <= {"file", "title"}


def test_the_step_summary_is_bounded_markdown() -> None:
    shown = github.summary(fleet())
    assert shown.startswith("### ✖ samdiag: 1 of 8")
    assert shown.endswith("\n")
    assert github.SUMMARY_LIMIT / 2 < len(github.summary(fleet() * 300).encode()) < 2**20
