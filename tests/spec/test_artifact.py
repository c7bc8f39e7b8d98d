"""What a stamp or a sidecar may say, and what is refused or ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint, Hint
from samdiag.spec.artifact import read_artifact
from samdiag.types import Shadowed, Trust

CATALOG = {"model": {"gallery": "tiny"}, "data": {"gallery": "tiny-data"}, "loss": "mse"}
NAMING_CODE = [
    {"problem": "train:problem"},
    {"pythonpath": ["."], **CATALOG},
    {**CATALOG, "model": "os:system"},
    {**CATALOG, "model": {"python": "os:system", "args": {"command": "id"}}},
    {**CATALOG, "data": {"python": "a:b"}},
    {**CATALOG, "loss": {"python": "a:b"}},
    {**CATALOG, "loss": "file.py:loss"},
    {**CATALOG, "data": {"folder": "/etc"}},
    {**CATALOG, "data": {"tensors": "/etc/passwd"}},
]


def with_stamp(stamp: dict[str, Any] | None, **hints: float | str) -> Checkpoint:
    found = {f"sam.{name}": Hint(value=value, source="optimizer state") for name, value in hints.items()}
    path = Path("runs/a.pt")
    return Checkpoint(path=path, format="safetensors", fingerprint="", stamp=stamp, hints=found, load=lambda _: {})


@pytest.mark.parametrize("document", NAMING_CODE)
def test_naming_code_or_paths_is_refused_with_the_lines_to_write(resolved, document: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="names code or paths") as caught:
        resolved(with_stamp(document))
    assert caught.value.exit_code == 2
    assert "stamp in the checkpoint" in caught.value.what
    assert "your own samdiag.toml:\n    " in caught.value.todo
    assert all(f"{name} = " in caught.value.todo for name in document)


@pytest.mark.parametrize("document", NAMING_CODE)
def test_it_is_ignored_where_the_user_names_the_problem(resolved, document: dict[str, Any]) -> None:
    resolution = resolved(with_stamp(document), {"problem": "mine:problem"})
    assert resolution.settings["problem"].value == "mine:problem"
    assert resolution.settings["problem"].shadowed == ()
    assert resolution.pythonpath == ()
    assert any("names code or paths" in warning for warning in resolution.warnings)


def test_the_lines_to_write_are_toml_without_control_characters(resolved) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(with_stamp({"model": {"python": "a:b", "args": {"x y": ["\x1b[2J\u202e", 1, True]}}}))
    line = caught.value.todo.splitlines()[1].strip()
    assert line == r'model = { python = "a:b", args = { "x y" = ["\u001b[2J\u202e", 1, true] } }'


def test_the_judge_is_out_of_reach(resolved) -> None:
    stamp = {
        **CATALOG,
        "data": {"gallery": "tiny-data", "num_samples": 1, "batch_size": 1},
        "measure": {"tol": 0.9, "seed": 7, "device": "cuda", "samples": 1},
        "gate": {"fail_on": ["never"], "require": ["loss > 0"], "strict_spec": True},
        "weights": "ema",
    }
    resolution = resolved(with_stamp(stamp))
    named = ["measure.tol", "measure.seed", "measure.device", "measure.samples", "weights"]
    named += ["gate.fail_on", "gate.require", "gate.strict_spec"]
    for name in named:
        assert resolution.settings[name].trust is Trust.DEFAULT
        assert not resolution.settings[name].shadowed
    assert resolution.settings["data"].value == {"gallery": "tiny-data", "args": {}}
    (warning,) = resolution.warnings
    assert all(name in warning for name in (*named, "data.num_samples", "data.batch_size"))


def test_a_catalog_spec_is_used_whole(resolved) -> None:
    settings = resolved(with_stamp({**CATALOG, "sam": {"rho": 0.07}})).settings
    assert {settings[name].trust for name in ("model", "data", "loss", "sam.rho")} == {Trust.ARTIFACT}
    assert settings["model"].source == "stamp in the checkpoint"


def test_artifact_arguments_never_reach_user_code(resolved) -> None:
    stamp = {**CATALOG, "model": {"gallery": "tiny", "args": {"hidden": 9}}}
    user = {"model": "m:f", "data": "m:d", "loss": "mse"}
    setting = resolved(with_stamp(stamp), user).settings["model"]
    assert setting.value == {"python": "m:f", "args": {}}
    assert setting.shadowed[0].value["args"] == {"hidden": 9}


def test_an_invalid_stamp_is_an_error_only_where_it_is_needed(resolved) -> None:
    checkpoint = with_stamp({**CATALOG, "future": 1})
    with pytest.raises(UsageError, match="future"):
        resolved(checkpoint)
    resolution = resolved(checkpoint, {"problem": "mine:problem"})
    assert any("future" in warning for warning in resolution.warnings)


def test_what_a_document_says_is_not_changed_by_reading() -> None:
    document = {**CATALOG, "data": {"gallery": "tiny-data", "batch_size": 1}, "gate": {}}
    read_artifact(lambda: document, "stamp", user_spec=False)
    assert document["data"] == {"gallery": "tiny-data", "batch_size": 1}
    assert "gate" in document


def test_optimizer_hints_are_the_farthest(resolved) -> None:
    checkpoint = with_stamp({**CATALOG, "sam": {"rho": 0.07}}, rho=0.2, lr=0.1, variant="asam")
    settings = resolved(checkpoint, {"sam.rho": 0.1}).settings
    assert settings["sam.rho"].value == 0.1
    assert settings["sam.rho"].shadowed == (
        Shadowed(value=0.07, source="stamp in the checkpoint"),
        Shadowed(value=0.2, source="optimizer state"),
    )
    assert (settings["sam.lr"].value, settings["sam.lr"].source) == (0.1, "optimizer state")
    assert settings["sam.lr"].trust is Trust.ARTIFACT
    assert settings["sam.variant"].value == "asam"


def test_impossible_hints_are_dropped_with_a_warning(resolved) -> None:
    resolution = resolved(with_stamp(dict(CATALOG), rho=-1.0, lr=0.0, momentum=0.9))
    assert "sam.rho" not in resolution.settings
    assert "sam.lr" not in resolution.settings
    assert resolution.settings["sam.momentum"].value == 0.9
    assert any("sam.rho = -1.0 (optimizer state)" in warning for warning in resolution.warnings)
