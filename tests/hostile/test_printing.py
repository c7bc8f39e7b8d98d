"""Names, metadata and messages that would take over a terminal or forge a line, in every report."""

from __future__ import annotations

import json
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import HONEST, Run, network
from tests.hostile.attack import Ground
from tests.hostile.documents import hugging_face, lightning, timm
from tests.hostile.printing import PRINTED, STYLE, check

A = "runs/a.safetensors"
FEW = {name: PRINTED[name] for name in ("clear screen", "link", "line", "C1", "direction", "GitHub", "markup", "TOML")}


@pytest.fixture(autouse=True)
def _counted(record_property: Callable[[str, object], None]) -> None:
    """Every test here is one attack."""
    record_property("attacks", 1)


def every_way(inspect: Run, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The same command as text, in colour, as JSON and as --explain."""
    for more in ((), ("--format", "json"), ("--explain",)):
        check(inspect(*arguments, *more))
    monkeypatch.setenv("FORCE_COLOR", "1")
    check(inspect(*arguments))
    check(inspect(*arguments, "--explain"))


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file by hand, with any name."""
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, value in tensors.items():
        content = value.detach().contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("payload", FEW.values(), ids=FEW)
def test_path(payload: str, work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = work / f"{payload.replace('/', '')}.safetensors"
    path.write_bytes((work / A).read_bytes())
    every_way(inspect, monkeypatch, path.name, *HONEST)
    every_way(inspect, monkeypatch, path.name, "gone" + payload, *HONEST)  # and in the list of what is there


@pytest.mark.parametrize("payload", FEW.values(), ids=FEW)
def test_tensor_names(payload: str, work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(work / "named.safetensors", {**network().state_dict(), payload: torch.zeros(2)}, {})
    every_way(inspect, monkeypatch, "named.safetensors", *HONEST)
    torch.save({**network().state_dict(), payload: torch.zeros(2)}, "named.pt")
    every_way(inspect, monkeypatch, "named.pt", *HONEST)


@pytest.mark.parametrize("payload", PRINTED.values(), ids=PRINTED)
@pytest.mark.parametrize(
    "stamp",
    [
        lambda p: {"model": p, "data": "digits", "loss": "cross_entropy"},
        lambda p: {"problem": f"{p}:x"},
        lambda p: {p: p},
        lambda p: {"model": {"gallery": "digits-mlp", "args": {p: p}}, "data": "digits", "loss": "cross_entropy"},
        lambda p: {"sam": {"variant": p, "rho": p}},
        lambda p: {"gate": {p: p}, "measure": {p: 1}},
        lambda p: p,
    ],
    ids=["model", "problem", "key", "args", "sam", "gate", "text"],
)
def test_stamp(
    stamp: Callable[[str], Any], payload: str, work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(work / "s.safetensors", network().state_dict(), {"samdiag": json.dumps(stamp(payload)), payload: payload})
    check(inspect("s.safetensors", "--rho", "0.1"))
    check(inspect("s.safetensors", "--rho", "0.1", "--explain"))
    check(inspect("s.safetensors", *HONEST, "--explain"))


def test_stamp_beside_the_users_own_problem(work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings about what is ignored are part of the report."""
    for payload in FEW.values():
        stamp = {"model": {"gallery": payload, "args": {payload: payload}}, payload: payload, "gate": {payload: 1}}
        write(work / "s.safetensors", network().state_dict(), {"samdiag": json.dumps(stamp)})
        check(inspect("s.safetensors", *HONEST))


def test_optimizer_state(work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for payload in FEW.values():
        groups = [{"params": [0], "rho": payload, "lr": payload, payload: payload}]
        torch.save({"model": network().state_dict(), "optimizer": {"state": {}, "param_groups": groups}}, "o.pt")
        check(inspect("o.pt", *HONEST))
        check(inspect("o.pt", *HONEST, "--explain"))


@pytest.mark.parametrize("payload", FEW.values(), ids=FEW)
def test_messages_of_exceptions(payload: str, work: Path, inspect: Run) -> None:
    (work / "own.py").write_text(
        f"import problems\nTEXT = {payload!r}\n"
        "def loss(model, batch):\n    raise ValueError(TEXT)\n"
        "def raises():\n    raise type(TEXT, (Exception,), {})(TEXT)\n"
        "def late():\n    return problems.with_loss(loss)\n",
        encoding="utf-8",
    )
    for function in ("raises", "late", payload):
        ran = inspect(A, "--rho", "0.1", "--problem", f"own.py:{function}")
        assert ran.code == 2
        check(ran)


def test_markup_is_shown_as_written(work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "[bold red]x[/] [link=http:a].safetensors".replace("/", "")
    (work / name).write_bytes((work / A).read_bytes())
    monkeypatch.setenv("FORCE_COLOR", "1")
    ran = inspect(name, *HONEST)
    assert "[bold red]x" in STYLE.sub("", ran.out)
    assert "\x1b]8" not in ran.out
    assert "[bold red]x" in inspect(f"gone {name}", *HONEST).err


def test_a_path_that_is_no_text(work: Path, inspect: Run) -> None:
    """Bytes that are not UTF-8 arrive as lone surrogates, which cannot be printed."""
    name = b"bad\xff.safetensors"
    try:
        with open(name, "wb") as file:
            file.write((work / A).read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for more in ((), ("--format", "json"), ("--explain",)):
        ran = inspect(name.decode("utf-8", "surrogateescape"), *HONEST, *more)
        assert ran.code in {0, 3}  # safetensors itself takes no such path
        check(ran)
    check(inspect(b"gone\xff.pt".decode("utf-8", "surrogateescape"), *HONEST))


def test_usage_errors_of_the_parser(work: Path, inspect: Run) -> None:
    """A hostile file name in place of a number, as a careless `samdiag inspect * ` would give."""
    for payload in FEW.values():
        check(inspect(A, "--format", payload))
        check(inspect(A, "--fail-on", payload))
        check(inspect(A, "--rho", payload))
        check(inspect(A, "--config", payload))
        check(inspect(A, "--output", f"nowhere/{payload}"))


def in_every_command(run: Run, path: str, *more: str) -> None:
    """What reads a checkpoint and prints something about it."""
    check(run("info", path))
    check(run("info", path, "--format", "json"))
    check(run("inspect", path, *more, "--explain"))
    check(run("inspect", path, "--rho", "0.1"))
    check(run("spectrum", path, *more))
    ran = run("init", path, "--output", "-")
    check(ran)
    if ran.code in {0, 3} and ran.out:
        document = tomllib.loads(ran.out)
        assert not {"gate", "measure"} & document.keys(), document
        assert document.get("problem") != "evil:run"
        assert "pythonpath" not in document


@pytest.mark.parametrize("payload", PRINTED.values(), ids=PRINTED)
def test_every_report_of_names(payload: str, work: Path, run: Run) -> None:
    """As the name of a tensor and as metadata, in every command."""
    tensors = {f"{payload}.weight": torch.zeros(3, 2), f"{payload}.bias": torch.zeros(3)}
    try:
        write(work / "n.safetensors", tensors, {payload: payload, "format": payload})
    except UnicodeEncodeError:  # no JSON in UTF-8 has it
        return
    in_every_command(run, "n.safetensors", "--problem", "problems.py:problem")
    torch.save({"model": tensors, payload: 1, "arch": payload, "args": {payload: payload}}, "n.pt")
    in_every_command(run, "n.pt", "--problem", "problems.py:problem")


@pytest.mark.parametrize("channel", [hugging_face, lightning, timm], ids=["config.json", "Lightning", "timm"])
@pytest.mark.parametrize("payload", FEW.values(), ids=FEW)
def test_every_report_of_configurations(payload: str, channel: Any, ground: Ground, run: Run) -> None:
    """As a model's name, a class, an argument and a key of the checkpoint's own configuration."""
    said = {
        "architectures": [payload],
        "model_type": payload,
        "model": payload,
        "arch": payload,
        "lr": payload,
        "rho": payload,
        "dataset": payload,
        "data_dir": payload,
        "num_classes": payload,
        "id2label": {"0": payload},
        payload: payload,
        "_name_or_path": payload,
        "auto_map": {payload: payload},
    }
    path = channel(lambda _: said)(ground)
    in_every_command(run, str(path), "--problem", "problems.py:problem")
