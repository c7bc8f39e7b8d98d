"""The nearest origin wins, and the rest is kept as shadowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.errors import UsageError
from samdiag.spec.merging import DEFAULTS, Origin, merge
from samdiag.types import Shadowed, Trust

TRUSTS = [Trust.CLI, Trust.CLI, Trust.PROJECT, Trust.ARTIFACT, Trust.ARTIFACT, Trust.ARTIFACT]
WHOLE = {"model": {"gallery": "tiny"}, "data": {"gallery": "tiny-data"}, "loss": {"name": "mse"}}
NAMES = st.sampled_from(["sam.rho", "sam.lr", "sam.momentum", "sam.batch_size", "measure.seed", "weights"])
PARTS = st.sampled_from(["problem", "model", "data", "loss"])


def origins(*values: dict[str, Any], trusts: list[Trust] = TRUSTS) -> list[Origin]:
    found = zip(trusts, values, strict=False)
    return [Origin(source=f"origin {index}", trust=trust, values=said) for index, (trust, said) in enumerate(found)]


@given(st.lists(st.dictionaries(NAMES, st.integers(1, 9)), min_size=6, max_size=6))
def test_nearest_wins_and_shadowed_lists_the_rest(values: list[dict[str, Any]]) -> None:
    speakers = origins(*values)
    settings, _ = merge([Origin(source="cli", trust=Trust.CLI, values=WHOLE), *speakers])
    for name in {*DEFAULTS, *(name for said in values for name in said)}:
        said = [
            Shadowed(value=origin.values[name], source=origin.source) for origin in speakers if name in origin.values
        ]
        said += [Shadowed(value=DEFAULTS[name], source="default")] if name in DEFAULTS else []
        setting = settings[name]
        assert [Shadowed(value=setting.value, source=setting.source), *setting.shadowed] == said
        trusts = {"default": Trust.DEFAULT, **{origin.source: origin.trust for origin in speakers}}
        assert setting.trust is trusts[setting.source]


@given(st.lists(st.sets(PARTS), min_size=6, max_size=6))
def test_an_artifact_supplies_all_of_the_problem_or_nothing(said: list[set[str]]) -> None:
    speakers = origins(*({name: f"{name} {index}" for name in names} for index, names in enumerate(said)))
    try:
        settings, _ = merge(speakers)
    except UsageError:
        return
    used = [settings[name] for name in ("problem", "model", "data", "loss") if name in settings]
    assert {setting.trust for setting in used} in (
        {Trust.ARTIFACT},
        {Trust.CLI},
        {Trust.PROJECT},
        {Trust.CLI, Trust.PROJECT},
    )
    if used[0].trust is Trust.ARTIFACT:
        assert len({setting.source for setting in used}) == 1
        assert not any(said[:3])
    assert ("problem" in settings) != ("model" in settings)


def test_nobody_says_anything() -> None:
    with pytest.raises(UsageError, match="nothing says which model") as caught:
        merge([])
    assert all(text in caught.value.todo for text in ('problem = "train:problem"', "--problem", "samdiag.stamp("))


def test_the_users_own_origins_combine() -> None:
    settings, _ = merge(origins({"loss": {"name": "cross_entropy"}}, {}, WHOLE))
    assert settings["loss"].value == {"name": "cross_entropy"}
    assert settings["loss"].shadowed == (Shadowed(value={"name": "mse"}, source="origin 2"),)
    assert settings["model"].source == "origin 2"


def test_an_artifact_does_not_complete_what_the_user_began() -> None:
    with pytest.raises(UsageError, match="does not complete") as caught:
        merge(origins({"model": {"python": "a:b"}}, {}, {}, WHOLE))
    assert "origin 3 says data and loss" in caught.value.what
    assert "--data tiny-data --loss mse" in caught.value.todo
    assert 'data = "tiny-data"' in caught.value.todo


def test_one_artifact_does_not_complete_another() -> None:
    with pytest.raises(UsageError, match="nothing says data or loss"):
        merge(origins({}, {}, {}, {"model": {"gallery": "tiny"}}, WHOLE))


def test_a_problem_is_whole() -> None:
    settings, _ = merge(origins({"problem": "a:b"}, {}, WHOLE))
    assert "model" not in settings
    with pytest.raises(UsageError, match="not combined with parts"):
        merge(origins({"loss": {"name": "mse"}}, {}, {"problem": "a:b"}))
