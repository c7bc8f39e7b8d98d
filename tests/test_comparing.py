"""What counts as a change between two diagnoses, and what does not."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from samdiag.comparing import BARE, MEASURED, Comparison, compare, diff
from samdiag.errors import CannotDecide
from samdiag.quantities import NAMES
from samdiag.types import CheckpointInfo, Diagnosis, Estimate, Severity, Trust
from tests.reports.samples import diagnosis, est, failed, finding, measurements, settings


def with_number(value: Estimate, name: str = "lambda_max", **more: Any) -> Diagnosis:
    return diagnosis(measurements=measurements(**{name: value}, **more))


def shift(before: Estimate, after: Estimate, name: str = "lambda_max", **more: Any) -> Any:
    found = compare(with_number(before, name, **more), with_number(after, name, **more))
    return next(one for one in found.shifts if one.name == name)


def at(path: str, *, step: int | None = None, seed: int | None = None, **changes: Any) -> Diagnosis:
    said = settings()
    if seed is not None:
        said["measure.seed"] = dataclasses.replace(said["sam.variant"], value=seed)
    info = CheckpointInfo(path=path, fingerprint=f"sha256:{path}", step=step)
    return diagnosis(**{"checkpoint": info, "settings": said} | changes)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (est(1.0, 0.1, 0.0), est(1.5, 0.1, 0.0), True),
        (est(1.0, 0.1, 0.0), est(1.15, 0.1, 0.0), False),  # the bars touch
        (est(1.0, 0.0, 0.1), est(1.35, 0.0, 0.1), False),  # z is 2.5, and the bars overlap
        (est(1.0, 0.0, 0.1), est(1.45, 0.0, 0.1), True),
        (est(1.0, 0.1, 0.05), est(0.5, 0.05, 0.05), True),
        (est(1.0, 0.0, 0.0), est(1.0 + 1e-7, 0.0, 0.0), False),  # rounding
        (est(1.0, 0.0, 0.0), est(1.001, 0.0, 0.0), True),
        (est(1.0, math.inf, 0.0), est(9.0, 0.0, 0.0), False),
        (est(math.inf, 0.0, 0.0), est(math.inf, 0.0, 0.0), False),
        (est(math.inf, 0.0, 0.0), est(1.0, 0.1, 0.0), True),
        (est(0.0, 0.0, 0.0), est(0.0, 0.0, 0.0), False),
    ],
)
def test_a_number_has_changed_where_the_intervals_do_not_touch(
    before: Estimate, after: Estimate, changed: bool
) -> None:
    assert shift(before, after).changed is changed
    assert shift(after, before).changed is changed


def test_z_is_the_difference_over_the_combined_standard_error() -> None:
    found = shift(est(1.0, 0.0, 0.3), est(2.0, 0.0, 0.4))
    assert found.difference == 1.0
    assert found.error == pytest.approx(2 * 0.5)
    assert found.z == pytest.approx(2.0)
    assert shift(est(1.0, 0.25, 0.0), est(2.0, 0.25, 0.0)).z == pytest.approx(4.0)
    assert shift(est(2.0, 0.0, 0.0), est(1.0, 0.0, 0.0)).z == -math.inf


def test_a_sampling_error_that_is_not_known_leaves_a_change_open() -> None:
    unknown = est(1.0, 0.0, None), est(9.0, 0.0, None)
    assert shift(*unknown).changed is None
    assert shift(*unknown).difference == 8.0
    assert shift(*unknown, population=2048).changed is True  # every sample was analysed


def test_a_number_on_one_side_only_is_shown_and_is_no_change() -> None:
    found = shift(est(None), est(1.0, 0.0, 0.1))
    assert (found.before, found.difference, found.changed) == (None, None, None)


def test_a_bare_number_is_shown_without_a_judgement() -> None:
    found = compare(
        diagnosis(measurements=measurements(effective_radius=1.0)),
        diagnosis(measurements=measurements(effective_radius=9.0)),
    )
    assert next(one.difference for one in found.shifts if one.name == "effective_radius") == 8.0
    assert not found.differs


def test_every_compared_name_is_a_quantity() -> None:
    assert set(MEASURED) | set(BARE) <= set(NAMES)
    assert not set(MEASURED) & set(BARE)


def test_settings_that_differ_make_the_numbers_incomparable() -> None:
    other = settings()
    other["sam.rho"] = dataclasses.replace(other["sam.rho"], value=0.1, trust=Trust.CLI)
    other["gate.fail_on"] = dataclasses.replace(other["sam.rho"], value=["bounce"])
    other["measure.device"] = dataclasses.replace(other["sam.rho"], value="cuda")
    del other["model.args"]
    found = compare(diagnosis(), diagnosis(settings=other))
    said = [(change.name, change.before, change.after) for change in found.settings]
    assert said == [("sam.rho", 0.5, 0.1), ("model.args", {"num_classes": 10}, "not said")]
    assert not found.comparable
    assert found.differs


def test_who_said_a_setting_is_no_difference() -> None:
    other = {name: dataclasses.replace(one, source="elsewhere") for name, one in settings().items()}
    assert not compare(diagnosis(), diagnosis(settings=other)).settings


def test_findings_appear_vanish_and_get_worse() -> None:
    before = diagnosis(findings=(finding("bounce", severity=Severity.INFO), finding("unstable"), finding("minimum")))
    after = diagnosis(findings=(finding("bounce"), finding("minimum"), finding("convergence-floor")))
    found = {change.verdict: change for change in compare(before, after).findings}
    assert {name for name, change in found.items() if change.changed} == {"bounce", "unstable", "convergence-floor"}
    assert found["unstable"].after is None
    assert found["convergence-floor"].before is None


def test_the_same_twice_does_not_differ() -> None:
    found = compare(diagnosis(), diagnosis())
    assert not found.differs
    assert found.comparable
    assert "bit for bit" in found.notes[0]


@pytest.mark.parametrize(
    "other",
    [
        diagnosis("minimum"),
        failed(),
        diagnosis(findings=()),
        diagnosis(measurements=measurements(loss=est(9.0, 0.0, 0.01))),
    ],
)
def test_each_kind_of_change_is_a_difference(other: Diagnosis) -> None:
    assert compare(diagnosis(), other).differs


def test_the_number_of_samples_and_the_version_are_remarked_on() -> None:
    found = compare(diagnosis(), diagnosis(measurements=measurements(num_samples=64), samdiag_version="0.2.0"))
    assert any("2048 and 64 samples" in note for note in found.notes)
    assert any("0.1.0 and 0.2.0" in note for note in found.notes)


def paths(pairs: tuple[Comparison, ...]) -> list[tuple[str, str]]:
    return [(pair.before.name, pair.after.name) for pair in pairs]


def test_two_single_diagnoses_are_compared_whatever_they_are_called() -> None:
    found = diff([at("a.pt")], [at("b.pt")])
    assert (found.by, paths(found.pairs)) == ("alone", [("a.pt", "b.pt")])


def test_lists_are_matched_by_path_and_seed() -> None:
    before = [at("a.pt", seed=0), at("a.pt", seed=1), at("b.pt", seed=0)]
    after = [at("c.pt", seed=0), at("a.pt", seed=1), at("a.pt", seed=0)]
    found = diff(before, after)
    assert found.by == "path"
    assert [(pair.after.name, pair.before.seed, pair.after.seed) for pair in found.pairs] == [
        ("a.pt", 0, 0),
        ("a.pt", 1, 1),
    ]
    assert [side.name for side in found.only_before] == ["b.pt"]
    assert [side.name for side in found.only_after] == ["c.pt"]
    assert found.differs


def test_two_runs_are_matched_by_step() -> None:
    found = diff([at("x/1.pt", step=1), at("x/2.pt", step=2)], [at("y/2.pt", step=2), at("y/3.pt", step=3)])
    assert (found.by, paths(found.pairs)) == ("step", [("x/2.pt", "y/2.pt")])


def test_of_a_checkpoint_recorded_twice_the_last_counts() -> None:
    found = diff([at("a.pt"), at("a.pt", verdict="minimum"), at("b.pt")], [at("a.pt"), at("c.pt")])
    assert found.pairs[0].before.verdict == "minimum"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([at("a.pt"), at("b.pt")], [at("c.pt")]),
        ([at("a/1.pt", step=1), at("b/1.pt", step=1)], [at("c/1.pt", step=1)]),  # whose step 1?
    ],
)
def test_lists_that_share_nothing_cannot_be_compared(before: list[Diagnosis], after: list[Diagnosis]) -> None:
    with pytest.raises(CannotDecide) as caught:
        diff(before, after)
    assert "share neither" in caught.value.what
    assert caught.value.todo


def test_json_holds_no_invalid_number() -> None:
    found = diff([with_number(est(math.inf, 0.0, 0.0))], [with_number(est(1.0, 0.0, 0.0))])
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["pairs"][0]["differs"] is True
