"""What became of a run: order, what changed between neighbours, seeds, gaps."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from samdiag.errors import UsageError
from samdiag.trends import Move, RunTrend, trend_of
from samdiag.types import CheckpointInfo, Diagnosis, Estimate
from tests.reports.samples import est, failed, measurements
from tests.test_comparing import at


def point(step: int | None, value: Estimate | float, *, path: str = "", **changes: Any) -> Diagnosis:
    number = value if isinstance(value, Estimate) else est(value, 0.0, 0.1)
    return at(path or f"run/step-{step}.pt", step=step, measurements=measurements(lambda_max=number), **changes)


def run_of(*diagnoses: Diagnosis) -> RunTrend:
    (run,) = trend_of(diagnoses, ["lambda_max"]).runs
    return run


def moves(*values: Estimate | float) -> list[Move]:
    run = run_of(*(point(step, value) for step, value in enumerate(values)))
    return [row.readings["lambda_max"].move for row in run.rows if "lambda_max" in row.readings]


def test_the_rows_are_in_the_order_of_the_steps() -> None:
    run = run_of(point(1000, 1.0), point(90, 1.0), point(None, 1.0, path="run/last.pt"), point(500, 1.0))
    assert [row.step for row in run.rows] == [90, 500, 1000, None]


def test_without_steps_the_rows_are_as_recorded() -> None:
    run = run_of(point(None, 1.0, path="run/b.pt"), point(None, 1.0, path="run/a.pt"))
    assert [row.path for row in run.rows] == ["run/b.pt", "run/a.pt"]


def test_each_folder_is_a_run_and_run10_comes_after_run2() -> None:
    found = trend_of([point(1, 1.0, path=f"run{n}/checkpoint-1/w.pt") for n in (10, 2)])
    assert [run.run for run in found.runs] == ["run2", "run10"]


def test_only_what_lies_beyond_both_error_bars_has_moved() -> None:
    assert moves(1.0, 1.3, 2.0, 1.9, 1.0) == [Move.UNKNOWN, Move.SAME, Move.UP, Move.SAME, Move.DOWN]


def test_a_gap_is_passed_over() -> None:
    assert moves(1.0, est(None), 2.0) == [Move.UNKNOWN, Move.UP]


@pytest.mark.parametrize(
    ("values", "move", "ups", "downs"),
    [
        ((1.0, 2.0, 3.0), Move.UP, 2, 0),
        ((3.0, 2.0, 2.1, 1.0), Move.DOWN, 0, 2),
        ((1.0, 2.0, 1.0), Move.SWINGS, 1, 1),
        ((1.0, 1.1, 1.2), Move.SAME, 0, 0),
        ((1.0, 1.3, 1.6, 1.9), Move.UP, 0, 0),  # no step is large enough, all of them together are
        ((1.0,), Move.UNKNOWN, 0, 0),
        ((est(1.0, 0.0, None), est(9.0, 0.0, None)), Move.UNKNOWN, 0, 0),  # sampling error not known
    ],
)
def test_a_series_says_where_a_number_went(values: tuple[Any, ...], move: Move, ups: int, downs: int) -> None:
    (series,) = run_of(*(point(step, value) for step, value in enumerate(values))).series
    assert (series.move, series.ups, series.downs) == (move, ups, downs)


def test_the_verdict_changes_where_another_one_stands() -> None:
    run = run_of(*(point(step, 1.0, verdict=v) for step, v in enumerate(("bounce", "bounce", "minimum"))))
    assert [row.verdict_changed for row in run.rows] == [False, False, True]


def test_a_failure_is_a_row_and_no_change_of_verdict() -> None:
    broken = failed(checkpoint=CheckpointInfo(path="run/step-1.pt", step=1))
    run = run_of(point(0, 1.0), broken, point(2, 1.0))
    assert [row.verdict for row in run.rows] == ["saddle-attraction", "failed", "saddle-attraction"]
    assert not any(row.verdict_changed for row in run.rows)
    assert "pickled" in run.rows[1].failures[0]


def test_seeds_are_one_row_with_their_span() -> None:
    run = run_of(*(point(5, est(value, 0.01, 0.0), seed=seed) for seed, value in enumerate((1.0, 2.0, 1.5))))
    (row,) = run.rows
    reading = row.readings["lambda_max"]
    assert row.seeds == (0, 1, 2)
    assert (reading.value, reading.least, reading.most, reading.num_seeds) == (1.5, 1.0, 2.0, 3)
    assert (reading.low, reading.high) == pytest.approx((0.99, 2.01))
    assert not run.notes


def test_seeds_that_disagree_are_remarked_on() -> None:
    run = run_of(*(point(5, 1.0, seed=seed, verdict=v) for seed, v in enumerate(("bounce", "minimum", "bounce"))))
    assert run.rows[0].verdict == "bounce | minimum"
    assert run.notes == ("step 5: the seeds disagree: bounce (seed 0, 2); minimum (seed 1)",)


def test_settings_that_differ_are_remarked_on_but_not_seeds() -> None:
    other = at("run/step-2.pt", step=2, seed=1)
    changed = {**other.settings, "sam.lr": other.settings["sam.rho"]}
    run = run_of(point(1, 1.0, seed=0), at("run/step-2.pt", step=2, settings=changed))
    assert [note for note in run.notes if note.startswith("sam.lr differs (0.1, 0.5)")]
    assert not [note for note in run.notes if "seed" in note]


def test_of_a_checkpoint_recorded_twice_the_last_counts() -> None:
    run = run_of(point(1, 1.0, seed=0), point(1, 2.0, seed=0))
    assert run.rows[0].readings["lambda_max"].value == 2.0
    assert "run/step-1.pt" in run.notes[0]


def test_an_infinite_number_can_change() -> None:
    assert moves(est(math.inf, 0.0, 0.0), 1.0, est(math.inf, 0.0, 0.0)) == [Move.UNKNOWN, Move.DOWN, Move.UP]


def test_an_unknown_name_is_a_mistake() -> None:
    with pytest.raises(UsageError) as caught:
        trend_of([point(1, 1.0)], ["lamda_max"])
    assert "did you mean 'lambda_max'" in caught.value.what


def test_json_holds_no_invalid_number() -> None:
    found = trend_of([point(1, est(math.inf, 0.0, 0.0))], ["lambda_max"]).to_dict()
    assert (
        json.loads(json.dumps(found, allow_nan=False))["runs"][0]["rows"][0]["readings"]["lambda_max"]["value"]
        == "Infinity"
    )
