from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from samdiag.outcomes import Outcome
from samdiag.reports import fleet_text
from samdiag.reports.fleet_rows import Mark, digest_fleet, fleet_row
from samdiag.reports.github import harmless
from tests.hostile.printing import PRINTED

from .fleet_samples import at, fleet, gap, hit, hostile_outcomes
from .samples import est, every_kind, measurements
from .snapshot import matches

STYLE = re.compile(r"\x1b\[[0-9;]*m")
FLEET = fleet()
WIDTHS = (60, 80, 120)


def whole(width: int | None, *, color: bool = False, missing: int = 0) -> str:
    return fleet_text.render(FLEET, width=width, color=color, missing=missing)


@pytest.mark.parametrize("width", WIDTHS)
def test_snapshot(width: int) -> None:
    assert matches(f"fleet-{width}.txt", whole(width, missing=2))


@pytest.mark.parametrize("width", WIDTHS)
def test_colour_changes_nothing_but_styles(width: int) -> None:
    colored = whole(width, color=True)
    assert "\n".join(text.rstrip() for text in STYLE.sub("", colored).split("\n")) == whole(width)
    assert colored != whole(width)


@pytest.mark.parametrize("width", [0, 40, *WIDTHS])
def test_no_line_is_wider_than_asked_for(width: int) -> None:
    room = max(width, 40)
    if width >= 60:  # below that the columns before the path need all there is
        assert max(cell_len(text) for text in whole(width).split("\n")) <= room
    assert max(cell_len(text) for text in fleet_text.summary(FLEET, width=width, color=False).split("\n")) <= room


@pytest.mark.parametrize("width", WIDTHS)
def test_columns_stand_under_their_names(width: int) -> None:
    names = fleet_text.header(width=width, color=False)
    for outcome in FLEET:
        first = fleet_text.line(outcome, width=width, color=False).split("\n")[0]
        for name in ("λ_max", "λ_min", "checkpoint"):
            if name in names:
                column = names.index(name)
                assert first[column - 1] == " "
                assert first[column] != " "


def test_numbers_with_many_digits_keep_their_column() -> None:
    tiny = measurements(lambda_max=est(-1.234e-12, 1.1e-14), lambda_min=est(-123456.7, 0.01))
    first = fleet_text.line(Outcome(diagnosis=at("a.pt", measurements=tiny), exit_code=0), width=120, color=False)
    assert "−1.23e-12±1e-14" in first
    assert first.index("a.pt") == fleet_text.header(width=120, color=False).index("checkpoint")


def test_a_long_path_keeps_its_name() -> None:
    path = f"{'deep/' * 60}epoch_7.safetensors"
    shown = fleet_text.line(Outcome(diagnosis=at(path), exit_code=0), width=80, color=False)
    assert shown.endswith("/epoch_7.safetensors")
    assert path in fleet_text.line(Outcome(diagnosis=at(path), exit_code=0), width=None, color=False)


def test_every_mark_is_said_in_words_too() -> None:
    lines = [fleet_text.line(outcome, color=False).split("\n") for outcome in FLEET]
    assert [text[0][0] for text in lines] == list("✔▲✖????✔✔".replace("????", "???"))
    assert [len(text) > 1 for text in lines] == [mark[0] in {"✖", "?"} for mark in (text[0] for text in lines)]


def test_the_summary_counts_what_there_is() -> None:
    shown = fleet_text.summary(FLEET, missing=2, width=None, color=False)
    assert shown.split("\n") == [
        "✖ 1 of 8 checkpoints fails the gate; 3 more could not be decided; stopped with 2 checkpoints left",
        "  2 descending, 2 minimum, 1 bounce, 1 saddle-attraction, 1 undecided, 1 not examined",
        "✖ fails the gate: 1",
        "  runs/cifar10/epoch_20.pt: saddle-attraction, spec sam.rho",
        "? left open: 3",
        "  runs/cifar10/epoch_30.pt: requirement lambda_max < 9.5",
        "  runs/cifar10/epoch_40.pt: undecided",
        "  runs/cifar10/epoch_50.pt: not examined",
        "▲ accepted by the baseline: 1",
        "  runs/cifar10/epoch_10.pt: bounce",
        "? seeds disagree: 1",
        "  runs/実験/final.safetensors: minimum (seed 0), descending (seed 1)",
    ]


@pytest.mark.parametrize(
    ("outcomes", "missing", "mark", "headline"),
    [
        (FLEET[:1], 0, Mark.PASSED, "1 checkpoint passes the gate"),
        (FLEET[:2], 0, Mark.NOTED, "2 checkpoints pass the gate"),
        (FLEET[2:3], 0, Mark.FAILED, "1 of 1 checkpoint fails the gate"),
        (FLEET[3:6], 0, Mark.OPEN, "3 of 3 checkpoints could not be decided"),
        (FLEET[:1], 4, Mark.OPEN, "stopped with 4 checkpoints left"),
        ((), 0, Mark.OPEN, "no checkpoint was examined"),
        ((), 1, Mark.OPEN, "no checkpoint was examined; stopped with 1 checkpoint left"),
    ],
)
def test_the_headline(outcomes: tuple[Outcome, ...], missing: int, mark: Mark, headline: str) -> None:
    report = digest_fleet(outcomes, missing=missing)
    assert (report.mark, report.headline) == (mark, headline)


def test_a_long_list_is_counted() -> None:
    many = [Outcome(diagnosis=at(f"{n}.pt", "bounce"), exit_code=1, hits=(hit("bounce"),)) for n in range(25)]
    shown = fleet_text.summary(many, width=None, color=False).split("\n")
    assert len(shown) == 3 + fleet_text.LISTED + 1
    assert shown[-1] == "  … and 15 more"


def test_seeds_that_agree_are_not_mentioned() -> None:
    twice = [Outcome(diagnosis=at("a.pt", seed=seed), exit_code=0) for seed in (0, 1)]
    assert digest_fleet(twice).disagreements == ()
    again = [Outcome(diagnosis=at("a.pt", verdict), exit_code=0) for verdict in ("minimum", "bounce")]
    assert digest_fleet(again).disagreements == ()  # one seed: not the seed's doing


@pytest.mark.parametrize("kind", every_kind())
def test_every_kind_of_diagnosis_has_a_row(kind: str) -> None:
    diagnosis = every_kind()[kind]
    row = fleet_row(Outcome(diagnosis=diagnosis, exit_code=0))
    assert row.path
    assert row.reason
    assert len(row.numbers) == 3
    assert fleet_text.line(Outcome(diagnosis=diagnosis, exit_code=3), color=False).startswith("?")


def test_an_interval_that_is_left_open_is_said_beside_a_hit() -> None:
    both = Outcome(diagnosis=at("a.pt"), exit_code=1, hits=(hit(),), gaps=(gap(),))
    assert [why.partition(":")[0] for why in fleet_row(both).why] == [
        "saddle-attraction",
        "requirement lambda_max < 9.5",
    ]


@pytest.mark.parametrize("payload", PRINTED.values(), ids=PRINTED)
@pytest.mark.parametrize("width", [40, None])
def test_hostile_text_reaches_no_terminal(payload: str, width: int | None) -> None:
    shown = fleet_text.render(hostile_outcomes(payload), width=width)
    assert not {c for c in shown if c != "\n" and not c.isprintable()}
    assert not STYLE.search(shown)
    lines = shown.split("\n")
    assert all(text.startswith(("✔", "▲", "✖", "?", "  ")) or not text for text in lines)
    assert not [text for text in lines if text.lstrip().startswith("::") or "##[" in text]


@given(st.text(st.characters(codec=None, categories=None), max_size=60))
def test_any_path_is_one_line(path: str) -> None:
    shown = fleet_text.line(Outcome(diagnosis=at(path), exit_code=0), width=80, color=False)
    shown.encode("utf-8")
    assert len(shown.splitlines()) == 1


@given(st.text(alphabet="x: #[\n\te", max_size=40))
def test_a_runner_reads_no_command_in_harmless_text(text: str) -> None:
    shown = harmless(f"{text}::error::owned\n  ::add-mask::x\n##[group]x")
    assert not [line for line in shown.split("\n") if line.lstrip().startswith("::") or "##[" in line]
