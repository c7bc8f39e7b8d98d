from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from samdiag.reports import text
from samdiag.reports.words import VERDICT_WORDS
from samdiag.types import VERDICTS_BY_HARM

from .samples import HOSTILE, diagnosis, every_kind, failed, hostile
from .snapshot import matches

KINDS = every_kind()
STYLE = re.compile(r"\x1b\[[0-9;]*m")  # the only escape sequence that Rich may write here


def test_snapshot() -> None:
    assert matches("report.txt", text.render(diagnosis(), color=False))


@pytest.mark.parametrize("kind", KINDS)
def test_colour_changes_nothing_but_styles(kind: str) -> None:
    colored = text.render(KINDS[kind], color=True)
    assert "\n".join(line.rstrip() for line in STYLE.sub("", colored).split("\n")) == text.render(
        KINDS[kind], color=False
    )
    assert colored != text.render(KINDS[kind], color=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [0, 40, 80, 100, 200])
def test_no_line_is_wider_than_asked_for(kind: str, width: int) -> None:
    if KINDS[kind].failure is None:
        assert max(cell_len(line) for line in text.render(KINDS[kind], width=width, color=False).split("\n")) <= max(
            width, 40
        )


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_the_verdict_comes_first_in_words(verdict: str) -> None:
    lines = text.render(diagnosis(verdict), width=400, color=False).split("\n")
    assert VERDICT_WORDS[verdict].headline.upper() in lines[0]
    assert verdict in lines[0]
    assert lines[1] == VERDICT_WORDS[verdict].meaning


def test_the_change_comes_before_the_evidence() -> None:
    shown = text.render(diagnosis(), color=False)
    assert shown.index("0.5 → 0.134") < shown.index("Why") < shown.index("Evidence") < shown.index("Hessian spectrum")


def test_a_failure_is_two_lines() -> None:
    assert text.render(failed(), width=40, color=False).split("\n") == [
        "✖ runs/cifar10/epoch_40.safetensors: not a checkpoint that samdiag reads: a pickled nn.Module",
        "→ save `model.state_dict()` and inspect that file",
    ]


@pytest.mark.parametrize("hidden", HOSTILE)
@pytest.mark.parametrize("color", [True, False])
def test_hostile_text_reaches_no_terminal(hidden: str, color: bool) -> None:
    whole, failure = hostile(hidden), failed(checkpoint=hostile(hidden).checkpoint)
    for report in (text.render(whole, color=color), text.render(failure, color=color)):
        assert not set(STYLE.sub("", report) if color else report) & set("\x1b\x07\r\x9b\u202e\u2028\udcff")


@pytest.mark.parametrize("literal", ["[bold red]x[/]", ":smile:", "[link=https://x.y]z[/link]", "trailing\\"])
def test_markup_is_shown_literally(literal: str) -> None:
    assert literal in text.render(hostile(literal), width=200, color=False)


@pytest.mark.parametrize(
    "variables",
    [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "33"}, {"FORCE_COLOR": "1"}, {"TERM": "xterm-256color"}],
)
@pytest.mark.parametrize("color", [True, False])
def test_the_environment_has_no_say(variables: dict[str, str], color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = text.render(diagnosis(), color=color)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert text.render(diagnosis(), color=color) == before


def test_the_papers_formulas_beside_the_corrected_ones() -> None:
    """`--theory`: the drift at lambda_min as KIM Thm 2 prints it and as the update makes it."""
    from dataclasses import replace

    from samdiag.reports.theory import compare, render
    from samdiag.types import Direction, Estimate

    stuck = diagnosis()
    assert stuck.measurements is not None
    first = Direction(eigenvalue=Estimate(value=-2.0), effective_radius=0.4, noise=0.5)
    lowest = first.eigenvalue
    m = replace(stuck.measurements, bottom_directions=(first,), bottom_eigenvalues=(lowest,), lambda_min=lowest)
    drift = next(row for row in compare(m) if row.name.startswith("drift"))
    assert "Theorem 2" in drift.paper
    assert drift.quoted == -2.0 * (1 - 0.8) ** 2
    assert drift.corrected == -2.0 * (1 - 0.8) + m.weight_decay
    assert "KIM Theorem 1" in render(replace(stuck, measurements=m), width=100, color=False)
    well = replace(m, bottom_eigenvalues=(), top_eigenvalues=(Estimate(value=3.0),))
    assert compare(well) == ()
    assert "no negative eigenvalue" in render(replace(stuck, measurements=well), width=100, color=False)
