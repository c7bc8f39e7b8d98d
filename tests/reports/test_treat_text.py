"""The treatment's report: what was applied in words, every outcome, nothing wider than asked, nothing hostile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from samdiag.remedies import Phase
from samdiag.reports.treat_text import described, effect, render
from samdiag.treatment import Outcome, Recipe, Round, State, Treatment, Written
from samdiag.types import CheckpointInfo, Estimate

START = Recipe(rho=2.0, lr=0.2, momentum=0.0, batch_size=None, micro_batch=None)
BEFORE = State(
    verdict="saddle-attraction",
    confidence="high",
    message="",
    loss=2.303,
    grad_norm=0.0139,
    lambda_min=Estimate(value=-0.239, error=0.002),
    lambda_max=Estimate(value=0.257),
)
AFTER = replace(BEFORE, verdict="descending", loss=0.25, grad_norm=0.05)
ROUND = Round(
    number=1,
    before=BEFORE,
    kind="sgd-then-sam",
    start=START,
    phases=(Phase(steps=100, rho=0.0), Phase(steps=500, rho=0.1, momentum=0.5)),
    steps=600,
    loss_after=0.25,
    verdict_after="descending",
    seconds=3.2,
)
TREATED = Treatment(
    outcome=Outcome.RESCUED,
    reason="nothing holds the run any more",
    rounds=(ROUND,),
    before=BEFORE,
    after=AFTER,
    recipe=replace(START, rho=0.1, momentum=0.5),
    improved=True,
    safe=(("saddle trap", 0.05),),
    num_samples=1797,
    checkpoint=CheckpointInfo(path="run.safetensors"),
    written=Written(checkpoint="run.treated.safetensors", stamped=True, log="run.treated.jsonl"),
    samdiag_version="1",
)


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ((Phase(steps=500, rho=0.1),), "rho 2 → 0.1 for 500 steps"),
        ((Phase(steps=5, rho=2.0, lr=0.05),), "rho 2, lr 0.2 → 0.05 for 5 steps"),
        ((Phase(steps=5, rho=2.0, rho_end=0.2),), "rho 2 … 0.2 for 5 steps"),
        (
            (Phase(steps=9, rho=2.0, batch_size=64, micro_batch=16),),
            "rho 2, batch size all → 64, micro-batch the batch → 16 for 9 steps",
        ),
        (
            (Phase(steps=100, rho=0.0, momentum=0.9), Phase(steps=500, rho=0.1)),
            "plain SGD (rho 0), momentum 0 → 0.9 for 100 steps, then SAM at rho 0.1, momentum 0.9 → 0 for 500 steps",
        ),
    ],
)
def test_phases_in_words(phases: tuple[Phase, ...], words: str) -> None:
    """What a phase leaves open is as it was before the round, not as the phase before it had it."""
    assert described(phases, START) == words


def test_what_a_round_did_in_words() -> None:
    assert effect(ROUND) == "loss 2.303 → 0.25 (600 steps, 3.2 s); verdict now: descending"
    undone = replace(ROUND, diverged=True, loss_after=None, verdict_after=None, note="the loss diverged: back")
    assert effect(undone) == "the loss diverged: back (600 steps, 3.2 s)"


def test_the_report_of_a_rescue() -> None:
    text = render(TREATED, color=False)
    assert text.startswith("✔ RESCUED  saddle-attraction → descending · loss 2.303 → 0.25 · 600 steps in 1 round")
    assert "Train on with rho 0.1, lr 0.2, momentum 0.5, full batch." in text
    assert "Theory's bound is 0.05 (saddle trap" in text
    assert "samdiag sweep run.treated.safetensors" in text
    assert "model and data" not in text
    loose = replace(TREATED, safe=(("ridge", 3.0),), written=replace(TREATED.written, stamped=False))
    assert "theory allows up to 3 (ridge)" in render(loose, color=False)
    assert "(model and data as for the old file)" in render(loose, color=False)
    assert "nothing measured here bounds it" in render(replace(TREATED, safe=()), color=False)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("width", [60, 100, 120])
def test_every_outcome_fits_its_width(outcome: Outcome, width: int) -> None:
    rounds = () if outcome is Outcome.NOTHING else TREATED.rounds
    text = render(replace(TREATED, outcome=outcome, rounds=rounds), width=width, color=False)
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if "samdiag sweep" not in line]  # a command is copied in one piece
    assert max(map(len, lines)) <= width
    assert outcome.value.upper() in text.splitlines()[0]


def test_what_is_not_rescued_is_to_be_gone_on_with() -> None:
    text = render(replace(TREATED, outcome=Outcome.NOT_RESCUED), color=False)
    assert "samdiag treat run.treated.safetensors" in text
    assert "Train on" not in text
    nothing = replace(TREATED, outcome=Outcome.NOT_RESCUED, improved=False, written=Written())
    assert "no checkpoint: no round lowered the loss" in render(nothing, color=False)


def test_nothing_hostile_reaches_the_terminal() -> None:
    evil = "a\x1b[31m\nb\u202e"
    shown = replace(
        TREATED,
        reason=evil,
        notes=(evil,),
        warnings=(evil,),
        checkpoint=CheckpointInfo(path=evil),
        written=Written(checkpoint=evil, log=evil),
    )
    text = render(shown, color=False)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count(r"a\x1b[31m\nb\u202e") >= 5


def test_numbers_that_are_not_there_are_named() -> None:
    bare = replace(BEFORE, loss=None, grad_norm=None, lambda_min=Estimate(value=None))
    text = render(replace(TREATED, rounds=(replace(ROUND, before=bare),)), color=False)
    assert "not measured" in text
