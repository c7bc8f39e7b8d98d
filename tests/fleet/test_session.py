"""One process, many checkpoints: what is kept between them changes nothing in the records."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from samdiag import pipeline
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.reading_ahead import ReadAhead
from samdiag.fleet.session import Session
from samdiag.formats import content
from samdiag.reports import json_lines
from samdiag.types import Diagnosis
from tests.fleet.checkpoints import STAMP, write_checkpoint, write_run

CODE = """
import torch
from samdiag import Problem

calls = []


def mlp(hidden=3):
    calls.append("model")
    return torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.BatchNorm1d(hidden), torch.nn.Linear(hidden, 2))


def points():
    calls.append("data")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 2, generator=generator)
    return [(x[i : i + 8], (x[i : i + 8, 0] > 0).long()) for i in (0, 8, 16)]


def brittle(network, batch):
    if bool(network[0].weight.detach().abs().max() > 100):
        network[0].odd = torch.ones(3)
        raise RuntimeError("too large")
    return torch.nn.functional.cross_entropy(network(batch[0]), batch[1])
"""
OWN = """
pythonpath = ["."]
model = "own:mlp"
data = "own:points"
loss = "cross_entropy"
[sam]
rho = 0.1
lr = 0.1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("own", None)


def comparable(diagnosis: Diagnosis) -> dict[str, Any]:
    """The record without its timings."""
    record: dict[str, Any] = json.loads(json_lines.render(diagnosis))
    del record["timings"]
    if record["measurements"]:
        record["measurements"]["engine"] = None  # it holds seconds
    return record


def own_checkpoints(folder: Path, count: int) -> list[str]:
    """A project with a network of its own, and checkpoints of it."""
    (folder / "own.py").write_text(CODE)
    (folder / "samdiag.toml").write_text(OWN)
    names = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
        model[1].running_mean.normal_()
        save_file(model.state_dict(), folder / f"step-{seed}.safetensors")
        names.append(f"step-{seed}.safetensors")
    return names


def test_records_are_those_of_single_inspections(folder: Path) -> None:
    names = write_run(folder, 4)
    with Session(Asked()) as session:
        together = [comparable(session.inspect(Entry(path=name))) for name in (*names, names[0])]
    alone = [comparable(pipeline.inspect(name)) for name in (*names, names[0])]
    assert together == alone


def test_model_and_data_are_made_once(folder: Path) -> None:
    names = own_checkpoints(folder, 3)
    with Session(Asked()) as session:
        together = [session.inspect(Entry(path=name)) for name in names]
    assert [d.failure for d in together] == [None] * 3
    assert sys.modules["own"].calls == ["model", "data"]
    assert [comparable(d) for d in together] == [comparable(pipeline.inspect(name)) for name in names]


def test_what_a_failure_leaves_in_the_model_is_not_kept(folder: Path) -> None:
    names = own_checkpoints(folder, 2)
    (folder / "samdiag.toml").write_text(OWN.replace('"cross_entropy"', '"own:brittle"'))
    large = {name: 1000 * value for name, value in load_file(names[0]).items()}
    save_file(large, "large.safetensors")
    with Session(Asked()) as session:
        before, broken, after = (session.inspect(Entry(path=p)) for p in (names[0], "large.safetensors", names[1]))
    assert before.failure is None
    assert broken.failure is not None
    assert "too large" in broken.failure.what
    assert comparable(after) == comparable(pipeline.inspect(names[1]))
    assert sys.modules["own"].calls[:4] == ["model", "data"] * 2  # made anew after the failure


def test_a_file_that_does_not_fit_leaves_the_kept_model_usable(folder: Path) -> None:
    names = own_checkpoints(folder, 2)
    save_file({"0.weight": torch.zeros(5, 5)}, "other.safetensors")
    with Session(Asked()) as session:
        _, other, after = (session.inspect(Entry(path=p)) for p in (names[0], "other.safetensors", names[1]))
    assert other.failure is not None
    assert other.failure.exit_code == 2
    assert comparable(after) == comparable(pipeline.inspect(names[1]))


def test_other_settings_make_another_problem(folder: Path) -> None:
    a, b = write_run(folder, 2)
    other = {**STAMP, "model": {"gallery": "saddle"}, "data": {"gallery": "saddle"}, "loss": {"name": "model"}}
    save_file({"w": torch.tensor([0.5, 0.25], dtype=torch.float64)}, "s.safetensors", {"samdiag": json.dumps(other)})
    with Session(Asked()) as session:
        mixed = [comparable(session.inspect(Entry(path=name))) for name in (a, "s.safetensors", b, "s.safetensors")]
    assert mixed == [comparable(pipeline.inspect(name)) for name in (a, "s.safetensors", b, "s.safetensors")]


def test_seeds_are_of_their_entry_alone(folder: Path) -> None:
    (name,) = write_run(folder, 1)
    with Session(Asked()) as session:
        seeded, plain = session.inspect(Entry(path=name, seed=7)), session.inspect(Entry(path=name))
        identities = session.identify(Entry(path=name, seed=7)), session.identify(Entry(path=name))
    assert (seeded.settings["measure.seed"].value, plain.settings["measure.seed"].value) == (7, 0)
    assert [i.request for i in identities] == [seeded.request, plain.request]
    assert identities[0].fingerprint == identities[1].fingerprint
    assert identities[0].request != identities[1].request


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"overrides": {"sam.rho": 0.2}}, False),
        ({"overrides": {"measure.tol": 0.1}}, False),
        ({"cross_check": True}, False),
        ({"warm_start": "subsample"}, False),
        ({"overrides": {"gate.fail_on": ["bounce"]}}, True),  # a gate only looks at the diagnosis
        ({"overrides": {"sam.rho": 0.1}}, True),  # who says it does not matter
    ],
)
def test_a_request_is_all_that_decides_the_record(changed: dict[str, Any], same: bool, folder: Path) -> None:
    (name,) = write_run(folder, 1)
    with Session(Asked()) as one, Session(Asked(**changed)) as other:
        found = one.identify(Entry(path=name)).request == other.identify(Entry(path=name)).request
    assert found is same


def test_a_neighbours_vectors_are_started_from_and_agree(folder: Path) -> None:
    names = []
    base = load_file(write_digits(folder, 0))
    for i in range(3):
        names.append(write_digits(folder, i, base))
    with Session(Asked(warm_start="neighbour")) as session:
        warm = [session.inspect(Entry(path=name)) for name in names]
    cold = [pipeline.inspect(name) for name in names]
    assert [d.measurements.solver.warm_start for d in warm] == [None, *["the checkpoint before"] * 2]  # type: ignore[union-attr]
    assert [d.verdict for d in warm] == [d.verdict for d in cold]
    for one, other in zip(warm, cold, strict=True):
        assert one.measurements is not None
        assert other.measurements is not None
        for end in ("lambda_max", "lambda_min"):
            a, b = getattr(one.measurements, end), getattr(other.measurements, end)
            assert abs(a.value - b.value) <= a.error + b.error
    assert sum(d.measurements.num_products for d in warm[1:]) < sum(d.measurements.num_products for d in cold[1:])  # type: ignore[union-attr]


def write_digits(folder: Path, number: int, base: dict[str, Any] | None = None) -> str:
    """A stamped digits network; with `base` one that lies near it."""
    stamp = {"model": {"gallery": "digits-mlp"}, "data": {"gallery": "digits"}, "loss": {"name": "cross_entropy"}}
    torch.manual_seed(number)
    if base is None:
        from samdiag.gallery.digits import mlp

        base = dict(mlp().state_dict())
    near = {name: value + 1e-4 * number * torch.randn(value.shape) for name, value in base.items()}
    path = folder / f"digits-{number}.safetensors"
    save_file(near, path, {"samdiag": json.dumps({**stamp, "sam": {"rho": 0.05, "lr": 0.1}})})
    return str(path)


# ---------------------------------------------------------------- reading ahead


def test_a_file_that_was_read_ahead_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(folder / "a.safetensors", 1)
    expected = content.look_at(path).fingerprint()
    content._hashed.clear()
    ahead = ReadAhead()
    ahead.want(str(path))
    wait_until_hashed(path)
    ahead.close()
    monkeypatch.setattr(content.hashlib, "file_digest", None)  # reading it would raise
    assert content.look_at(path).fingerprint() == expected


def test_a_file_that_changed_since_it_was_read_ahead_is_read_again(folder: Path) -> None:
    path = write_checkpoint(folder / "a.safetensors", 1)
    before = content.look_at(path).fingerprint()
    write_checkpoint(path, 2)
    os.utime(path, ns=(10**18, 10**18))
    assert content.look_at(path).fingerprint() != before


def test_what_cannot_be_read_ahead_is_left_to_the_one_who_opens_it(folder: Path) -> None:
    ahead = ReadAhead()
    for name in ("gone.safetensors", "", "nul\0", str(folder)):
        ahead.want(name)
    path = write_checkpoint(folder / "a.safetensors", 1)
    ahead.want(str(path))
    wait_until_hashed(path)
    ahead.close()


def test_no_more_fingerprints_are_remembered_than_that(folder: Path) -> None:
    for i in range(content.REMEMBERED + 5):
        (folder / f"{i}.pt").write_bytes(bytes([i]))
        content.look_at(folder / f"{i}.pt").fingerprint()
    assert len(content._hashed) <= content.REMEMBERED


def wait_until_hashed(path: Path) -> None:
    import time

    deadline = time.monotonic() + 30
    while not any(name == str(path) for name, _ in content._hashed):
        assert time.monotonic() < deadline
        time.sleep(0.01)
