"""Lightning's own dictionary; files that its Trainer writes are in tests/ecosystem."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch
from torch import nn

from samdiag.formats import open_checkpoint
from tests.torchvision_ops import declare


@pytest.fixture
def saved(network: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.75)
    return {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"net.{name}": value for name, value in network.state_dict().items()},
        "loops": {},
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
    }


def said(checkpoint: Any) -> dict[str, Any]:
    return dict(checkpoint.embedded[0].document["sam"]) if checkpoint.embedded else {}


def test_it_is_recognised_by_content(save, saved: dict[str, Any]) -> None:
    assert open_checkpoint(save(saved, "weights.bin")).format == "lightning"
    del saved["pytorch-lightning_version"]
    assert open_checkpoint(save(saved, "last.ckpt")).format == "torch-zip"


def test_hyper_parameters_are_nearer_than_the_optimizer(save, saved: dict[str, Any]) -> None:
    saved["hyper_parameters"] = {"momentum": 0.875, "rho": 0.25}
    checkpoint = open_checkpoint(save(saved))
    assert said(checkpoint) == {"momentum": 0.875, "rho": 0.25}
    assert checkpoint.hints["sam.momentum"].value == 0.75
    assert any("disagree (momentum = 0.875 and 0.75)" in note for note in checkpoint.notes)


def test_but_the_learning_rate_is_that_of_the_last_step(save, saved: dict[str, Any]) -> None:
    saved["hyper_parameters"] = {"lr": 0.25}
    checkpoint = open_checkpoint(save(saved))
    assert said(checkpoint) == {}
    assert any("say lr = 0.25, the optimizer state 0.5: the latter" in note for note in checkpoint.notes)
    saved["optimizer_states"][0]["param_groups"][0]["initial_lr"] = 0.25  # where the schedule began: no disagreement
    assert not any("the latter" in note for note in open_checkpoint(save(saved)).notes)
    saved["optimizer_states"] = []
    assert said(open_checkpoint(save(saved))) == {"lr": 0.25}


def test_adam_has_no_momentum_of_sgd(save, saved: dict[str, Any], network: nn.Module) -> None:
    saved["optimizer_states"] = [torch.optim.Adam(network.parameters(), lr=0.5).state_dict()]
    saved["hyper_parameters"] = {"momentum": 0.875, "rho": 0.25}
    assert said(open_checkpoint(save(saved))) == {"rho": 0.25}


def test_the_data_modules_are_heard_after_the_modules(save, saved: dict[str, Any]) -> None:
    saved["hyper_parameters"] = {"rho": 0.25}
    saved["datamodule_hyper_parameters"] = {"rho": 0.5, "batch_size": 16}
    assert said(open_checkpoint(save(saved))) == {"rho": 0.25, "batch_size": 16}


@pytest.mark.parametrize(
    ("hyper_parameters", "expected"),
    [
        ({"rho": -1.0, "lr": 0.0, "batch_size": 0, "momentum": 1.5}, {}),
        ({"rho": True, "batch_size": 2.5, "adaptive": 1, "momentum": float("nan")}, {}),
        ({"rho": "0.1", "weight_decay": None}, {}),
        ({"adaptive": True, "rho": 1}, {"variant": "asam", "rho": 1.0}),
        ({"model": {"rho": 0.5}, "sam": {"rho": 0.25}}, {}),  # which of the two?
        ({"model": {"rho": 0.25}, "sam": {"rho": 0.25}}, {"rho": 0.25}),
        ({"sam": {"rho": 0.5}, "rho": 0.25}, {"rho": 0.25}),
        ({"a": {"b": {"c": {"rho": 0.25}}}}, {}),  # too deep to be sure
        (
            {"args": argparse.Namespace(rho=0.25, inner=argparse.Namespace(batch_size=4))},
            {"rho": 0.25, "batch_size": 4},
        ),
    ],
)
def test_only_what_is_certain_is_said(save, saved: dict[str, Any], hyper_parameters: Any, expected: Any) -> None:
    saved["optimizer_states"] = []
    saved["hyper_parameters"] = hyper_parameters
    assert said(open_checkpoint(save(saved))) == expected


def test_hyper_parameters_are_kept_as_plain_data(save, saved: dict[str, Any]) -> None:
    space = argparse.Namespace(depth=3, weight=torch.zeros(2), name="x" * 20_000)
    saved["hyper_parameters"] = {
        "space": space,
        "list": [1, None, torch.zeros(1), "a"],
        7: "no name",
        "bad": float("inf"),
    }
    kept = open_checkpoint(save(saved)).hyper_parameters
    assert kept == {"space": {"depth": 3}, "list": [1, None, "a"]}


def test_averaged_weights_of_the_callbacks(save, saved: dict[str, Any]) -> None:
    raw = dict(saved["state_dict"])
    average = {name: torch.zeros_like(value) for name, value in raw.items()}
    now = open_checkpoint(save({**saved, "state_dict": average, "current_model_state": raw}))
    later = open_checkpoint(save({**saved, "callbacks": {"SWA": {"average_model_state": average}}}, "later.ckpt"))
    for checkpoint in (now, later):
        assert all(torch.equal(checkpoint.weights()[name], raw[name]) for name in raw)
        assert all(torch.equal(checkpoint.weights("ema")[name], average[name]) for name in raw)


@pytest.mark.slow
def test_an_attribute_dict_is_a_dictionary(save, saved: dict[str, Any]) -> None:
    declare()
    from lightning.fabric.utilities.data import AttributeDict

    path = save({**saved, "optimizer_states": [], "hyper_parameters": {"cfg": AttributeDict(rho=0.25)}})
    assert said(open_checkpoint(path)) == {"rho": 0.25}
