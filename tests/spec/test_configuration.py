"""What a checkpoint's own configuration says: heard where it may be, never an error, and never half of a problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint, Hint
from samdiag.formats.checkpoint import Embedded
from samdiag.spec.discover import look_up, sidecar_of
from samdiag.types import Shadowed, Trust

MODEL = {"model": {"transformers": "BertForMaskedLM"}, "loss": "model"}
WHOLE = {"model": {"gallery": "tiny"}, "data": {"gallery": "tiny-data"}, "loss": "mse"}


def configured(document: dict[str, Any], **more: Any) -> Checkpoint:
    """A checkpoint whose configuration says `document`."""
    embedded = (Embedded(source="config.json", document=document),)
    return Checkpoint(path=Path("runs/a"), format="x", fingerprint="", embedded=embedded, load=lambda _: {}, **more)


def test_it_stands_between_stamp_and_optimizer_state(resolved) -> None:
    hints = {"sam.lr": Hint(value=0.3, source="optimizer state")}
    checkpoint = configured({"sam": {"lr": 0.2}}, stamp={**WHOLE, "sam": {"lr": 0.1}}, hints=hints)
    setting = resolved(checkpoint).settings["sam.lr"]
    assert (setting.value, setting.trust) == (0.1, Trust.ARTIFACT)
    assert setting.shadowed == (
        Shadowed(value=0.2, source="config.json"),
        Shadowed(value=0.3, source="optimizer state"),
    )


def test_half_a_problem_is_not_completed_and_the_lines_say_all(resolved) -> None:
    with pytest.raises(UsageError, match=r"model and loss said by config\.json, but nothing says data") as caught:
        resolved(configured(MODEL))
    assert 'model = { transformers = "BertForMaskedLM" }  # as config.json says' in caught.value.todo
    assert 'data = "train.py:data"' in caught.value.todo
    assert 'loss = "model"  # as config.json says' in caught.value.todo
    assert "samdiag init" in caught.value.todo


def test_the_lines_that_the_error_prints_complete_the_spec(folder: Path, train: Path, resolved) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(configured({"model": {"timm": "resnet18", "args": {"num_classes": 2}}}))
    lines = [line.strip() for line in caught.value.todo.splitlines()[1:]]
    (folder / "samdiag.toml").write_text("\n".join(lines))
    settings = resolved(configured(MODEL)).settings
    assert settings["model"].value == {"timm": "resnet18", "args": {"num_classes": 2}}
    assert {settings[name].trust for name in ("model", "data", "loss")} == {Trust.PROJECT}


def test_it_completes_nothing_that_the_user_began(resolved) -> None:
    with pytest.raises(UsageError, match="does not complete what somebody else began") as caught:
        resolved(configured(MODEL), {"data": "a:b"})
    assert 'model = { transformers = "BertForMaskedLM" }  # as config.json says' in caught.value.todo
    assert "data =" not in caught.value.todo


@pytest.mark.parametrize(
    "document",
    [
        {"model": "os:system"},
        {"model": {"python": "os:system"}},
        {"model": {"transformers": "auto", "config": "/etc/passwd"}},
        {"model": {"transformers": "auto", "base": "/etc"}},
        {"model": {"timm": "resnet18", "args": {"checkpoint_path": "/etc/passwd"}}},
        {"data": {"folder": "/etc"}},
        {"data": {"webdataset": "/a.tar"}},
        {"data": {"torchvision": "MNIST", "root": "/tmp"}},
        {"data": {"datasets": "text", "data_files": "/etc/passwd", "tokenizer": "checkpoint"}},
        {"data": {"datasets": "../secret"}},
        {"data": {"datasets": "imdb", "tokenizer": "/home"}},
        {"problem": "a:b"},
        {"pythonpath": ["."]},
        {"download": True},
        {"measure": {"tol": 0.5}},
        {"weights": "ema"},
    ],
)
def test_what_it_may_not_say_is_a_warning(resolved, document: dict[str, Any]) -> None:
    resolution = resolved(configured(document), {"problem": "a:b"})
    assert not set(document) & {name for name, s in resolution.settings.items() if s.trust is Trust.ARTIFACT}
    assert resolution.pythonpath == ()
    (warning,) = resolution.warnings
    assert warning.startswith("config.json says ")
    assert next(iter(document)) in warning


@pytest.mark.parametrize("document", [{"model": {"transformers": "auto", "base": "/etc"}}, {"data": {"folder": "/"}}])
def test_a_stamp_that_says_it_is_refused(resolved, document: dict[str, Any]) -> None:
    checkpoint = configured({}, stamp={**WHOLE, **document})
    with pytest.raises(UsageError, match="names code or paths"):
        resolved(checkpoint)


def test_one_bad_value_takes_nothing_else_along(resolved) -> None:
    document = {"sam": {"lr": "fast", "momentum": 0.9, "unknown": 1}, "model": 3, "future": {}}
    resolution = resolved(configured(document), {"problem": "a:b"})
    assert resolution.settings["sam.momentum"].value == 0.9
    assert "sam.lr" not in resolution.settings
    assert sorted(warning.split()[0] for warning in resolution.warnings) == ["future", "model", "sam.lr", "sam.unknown"]


@pytest.mark.parametrize("gate", [["bounce"], None])
def test_a_gate_is_warned_of_a_rho_that_the_checkpoint_chose(resolved, gate: list[str] | None) -> None:
    hinted = configured({}, hints={"sam.rho": Hint(value=0.2, source="optimizer state")})
    said = {"problem": "a:b", "gate.fail_on": gate}
    warned = [text for text in resolved(hinted, said).warnings if "rho = 0.2 (optimizer state)" in text]
    assert bool(warned) == (gate is not None)
    assert resolved(hinted, {**said, "sam.rho": 0.1}).warnings == ()


def test_the_network_is_asked_for_by_a_flag_alone(folder: Path, resolved) -> None:
    (folder / "samdiag.toml").write_text('problem = "a:b"\ndownload = true\n')
    with pytest.raises(UsageError, match="download") as caught:
        resolved(None)
    assert "--download" in caught.value.todo
    (folder / "samdiag.toml").unlink()
    assert resolved(None, {"problem": "a:b", "download": True}).settings["download"].value is True


def test_what_is_known_of_an_incomplete_spec(folder: Path) -> None:
    checkpoint = configured(MODEL, hints={"sam.lr": Hint(value=0.3, source="optimizer state")})
    resolution, error = look_up(overrides={"sam.rho": 0.1}, config=None, checkpoint=checkpoint, cwd=folder)
    assert error is not None
    assert error.exit_code == 2
    assert resolution.settings["model"].source == "config.json"
    assert (resolution.settings["sam.rho"].value, resolution.settings["sam.lr"].value) == (0.1, 0.3)


def test_who_is_not_even_shadowed(folder: Path) -> None:
    resolution, error = look_up(overrides={"problem": "a:b"}, config=None, checkpoint=configured(MODEL), cwd=folder)
    assert error is None
    assert resolution.unused == ("config.json also says model, loss: not used, problem said by command line",)


def test_the_sidecar_of_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model").mkdir()
    monkeypatch.chdir(folder / "model")
    wanted = folder / "model.samdiag.toml"
    assert sidecar_of(Path()) == wanted
    assert sidecar_of(folder / "model") == wanted
    assert sidecar_of(Path("..")) == folder.parent / f"{folder.name}.samdiag.toml"
    assert sidecar_of(Path("/")) is None


def test_the_sidecar_of_a_folder_is_heard(folder: Path, resolved) -> None:
    (folder / "runs" / "a").mkdir(parents=True)
    (folder / "runs" / "a.samdiag.toml").write_text('model = "tiny"\ndata = "tiny-data"\nloss = "mse"\n')
    assert resolved(configured({})).settings["model"].source == "sidecar a.samdiag.toml"
