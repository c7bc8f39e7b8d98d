"""Whole proposals: which source of a guess wins, and that the text says it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from samdiag.gallery.digits import mlp
from samdiag.guessing.proposal import Candidate, Part, Proposal
from samdiag.guessing.writing import render
from tests.guessing.conftest import Propose, part

TRAIN = """
raise SystemExit("this file was run")
import torch, samdiag
from torch import nn
class Net(nn.Module):
    def __init__(self):
        self.first = nn.Linear(4, 3)
        self.last = nn.Linear(3, 2)
def data(): ...
def loss(model, batch): ...
"""
NET = nn.ModuleDict({"first": nn.Linear(4, 3), "last": nn.Linear(3, 2)})


def test_digits_of_any_width(proposed: Propose) -> None:
    found = proposed(mlp(hidden=7, depth=2))
    assert part(found, "model") == {"gallery": "digits-mlp", "args": {"hidden": 7, "depth": 2}}
    assert (part(found, "data"), part(found, "loss")) == ("digits", "cross_entropy")
    assert found.missing == ()


def test_code_of_the_working_folder(folder: Path, proposed: Propose) -> None:
    (folder / "train.py").write_text(TRAIN)
    found = proposed(NET)
    assert part(found, "model") == {"python": "train.py:Net"}
    assert (part(found, "data"), part(found, "loss")) == ("train.py:data", "train.py:loss")
    assert found.remarks == ()


def test_a_problem_is_all_there_is(folder: Path, proposed: Propose) -> None:
    (folder / "train.py").write_text(TRAIN + "def problem(): ...\n")
    (chosen,) = proposed(NET).parts
    assert chosen.name == "problem"
    assert chosen.chosen is not None
    assert chosen.chosen.value == "train.py:problem"


def test_files_beside_the_checkpoint_elsewhere_are_not_looked_at(folder: Path, proposed: Propose) -> None:
    (folder / "runs" / "train.py").write_text(TRAIN)
    assert [line.partition(":")[0] for line in proposed(NET).missing] == ["model", "data", "loss"]


def test_code_in_one_folder_with_the_checkpoint_is_remarked(folder: Path, proposed: Propose, monkeypatch) -> None:
    (folder / "runs" / "train.py").write_text(TRAIN)
    from samdiag.formats import open_checkpoint
    from samdiag.guessing.guess import propose

    torch.save(NET.state_dict(), folder / "runs" / "a.pt")
    monkeypatch.chdir(folder / "runs")
    found = propose(open_checkpoint("a.pt"), path="a.pt", folder=folder / "runs", said={})
    assert part(found, "model") == {"python": "train.py:Net"}
    (remark,) = found.remarks
    assert remark.startswith("train.py lies beside the checkpoint")


def test_what_is_said_is_taken_as_said(folder: Path, proposed: Propose) -> None:
    (folder / "train.py").write_text(TRAIN + "def problem(): ...\n")
    found = proposed(NET, said={"model": {"python": "my:own", "args": {}}}, rho=0.3)
    assert part(found, "model") == {"python": "my:own", "args": {}}
    assert part(found, "data") == "train.py:data"
    assert (found.rho, found.rho_unknown) == (0.3, False)


def test_data_that_fits_before_a_function_of_another_file(folder: Path, proposed: Propose) -> None:
    (folder / "prepare.py").write_text("def data(): ...")
    np.savez(folder / "train.npz", inputs=np.zeros((6, 4)), targets=np.arange(6) % 2)
    assert part(proposed(NET, said={"model": {"python": "my:own"}}), "data") == {"tensors": "train.npz"}


def test_the_only_file_for_a_network_of_ones_own(folder: Path, proposed: Propose) -> None:
    (folder / "train.py").write_text(TRAIN.replace("def data", "def dates"))
    np.savez(folder / "train.npz", inputs=np.zeros((6, 9)), targets=np.arange(6) % 2)
    assert part(proposed(NET), "data") == {"tensors": "train.npz"}
    np.savez(folder / "train.npz", inputs=np.zeros((6, 9)), targets=np.arange(6))
    assert part(proposed(NET), "data") is None  # class 5 of 2 cannot be


def test_averaged_weights_alone(proposed: Propose) -> None:
    found = proposed({"state_dict_ema": mlp().state_dict()})
    assert found.weights == "ema"
    assert tomllib.loads(render(found))["weights"] == "ema"


def test_hyperparameters_are_comments_with_their_source(proposed: Propose) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.8)
    optimizer.param_groups[0]["rho"] = 0.07
    text = render(proposed({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))
    assert "# rho = 0.07  (optimizer state)" in text
    assert "# lr = 0.2  (optimizer state)" in text
    assert tomllib.loads(text)["sam"] == {}


def test_without_a_rho_the_usual_one_is_written(proposed: Propose) -> None:
    found = proposed(mlp())
    assert found.rho_unknown
    assert tomllib.loads(render(found))["sam"] == {"rho": 0.05}


def test_what_is_missing_is_a_comment(proposed: Propose) -> None:
    text = render(proposed(NET))
    assert set(tomllib.loads(text)) == {"sam"}
    assert text.count("# TO BE FILLED IN") == 3
    assert "#   first: weight 3x4, bias 3" in text


HOSTILE = st.text() | st.sampled_from(
    ['"\n[gate]\nfail_on=["never"]', "\nproblem='os:system'", "\x1b[2J", '"""', "\r#"]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_from_a_checkpoint_breaks_out(name: str, why: str, value: str) -> None:
    candidate = Candidate(value={"timm": value, "args": {name: value}}, why=why)
    found = Proposal(
        checkpoint=name,
        described=(why,),
        parts=(
            Part(name="model", chosen=candidate, others=(candidate,)),
            Part(name="data", missing=why, example=value),
        ),
        rho=None,
        rho_why=why,
        hyperparameters={"sam.lr": (value, why)},
        layers=(name,),
        remarks=(why,),
    )
    document: dict[str, Any] = tomllib.loads(render(found))
    assert set(document) == {"model", "sam"}
    assert document["sam"] == {}
    assert all(line.isprintable() for line in render(found).splitlines())


@pytest.mark.parametrize("names", [["a" * 5000], [f"layer{number}" for number in range(3000)]])
def test_many_or_long_names_do_not_drown_the_file(proposed: Propose, names: list[str]) -> None:
    text = render(proposed({f"{name}.weight": torch.zeros(2, 2) for name in names}))
    assert len(text.splitlines()) < 100
    assert max(map(len, text.splitlines())) < 500
