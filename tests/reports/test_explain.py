from __future__ import annotations

import pytest

from samdiag.reports import explain
from samdiag.reports.provenance import setting_row, value_text
from samdiag.types import Setting, Shadowed, Trust

from .samples import HOSTILE, hostile, settings
from .snapshot import matches


def test_snapshot() -> None:
    assert matches("explain.txt", explain.render(settings(), color=False))


def test_row() -> None:
    row = setting_row("sam.rho", settings()["sam.rho"])
    assert (row.name, row.value, row.source, row.trust) == ("sam.rho", "0.5", "command line", Trust.CLI)
    assert row.overruled == (("0.05", "optimizer state"), ("0.05", "default"))


def test_who_said_the_same_was_not_overruled() -> None:
    shadowed = (Shadowed(value=0.05, source="samdiag.toml"), Shadowed(value=0.1, source="stamp"))
    row = setting_row("sam.rho", Setting(value=0.05, source="command line", trust=Trust.CLI, shadowed=shadowed))
    assert row.overruled == (("0.1", "stamp"),)


def test_nothing_to_explain() -> None:
    assert explain.render({}) == "No setting was given and none has a default."


@pytest.mark.parametrize("hidden", HOSTILE)
def test_hostile_settings_reach_no_terminal(hidden: str) -> None:
    shown = explain.render(hostile(hidden).settings, color=False)
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e\u2028\udcff")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not set"),
        (True, "true"),
        (5e-4, "5e-4"),
        (128, "128"),
        ("resnet18", "resnet18"),
        ({"num_classes": 10}, "{'num_classes': 10}"),
        pytest.param([10**5000], "a list that cannot be shown", id="huge"),
    ],
)
def test_value_text(value: object, text: str) -> None:
    assert value_text(value) == text
