"""The arguments of training scripts; files that timm itself writes are in tests/ecosystem."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch

from samdiag.formats import open_checkpoint
from samdiag.formats.timm_file import find_num_classes

TIMM = {"model": "resnet18", "num_classes": 10, "smoothing": 0.0, "mixup": 0.0, "opt": "sgd", "batch_size": 8}
TORCHVISION = {"model": "resnet18", "data_path": "/data", "lr_step_size": 30, "test_only": False, "opt": "sgd"}


def document(save, **args: Any) -> dict[str, Any]:
    """What a file with these arguments says."""
    saved = {"state_dict": {"fc.weight": torch.zeros(7, 3)}, "args": argparse.Namespace(**args)}
    found = open_checkpoint(save(saved)).embedded
    return dict(found[0].document) if found else {}


def test_timm(save) -> None:
    assert document(save, **TIMM) == {
        "model": {"timm": "resnet18", "args": {"num_classes": 10}},
        "loss": {"name": "cross_entropy"},
        "sam": {"batch_size": 8},
    }


def test_the_batch_is_that_of_all_processes(save) -> None:
    said = document(save, **TIMM, world_size=4, grad_accum_steps=2)
    assert said["sam"] == {"batch_size": 64}
    said = document(save, **TORCHVISION, batch_size=8, world_size=4)
    assert said["sam"] == {"batch_size": 32}


def test_momentum_is_that_of_sgd_alone(save) -> None:
    assert document(save, **{**TIMM, "opt": "momentum"}, momentum=0.75)["sam"]["momentum"] == 0.75
    assert "momentum" not in document(save, **{**TIMM, "opt": "adamw"}, momentum=0.75)["sam"]


@pytest.mark.parametrize("flag", ["bce_loss", "jsd_loss"])
def test_another_loss_is_not_called_cross_entropy(save, flag: str) -> None:
    assert "loss" not in document(save, **TIMM, **{flag: True})


@pytest.mark.parametrize("name", ["hf_hub:somebody/model", "../model", "/etc/passwd", "", "a" * 200, 7, "x\x1b[31m"])
def test_a_name_that_is_no_plain_name_is_not_heard(save, name: object) -> None:
    assert "model" not in document(save, **{**TIMM, "model": name})
    assert "model" not in document(save, **{**TORCHVISION, "model": name})


def test_torchvision_reads_the_number_of_classes_off_the_weights(save) -> None:
    assert document(save, **TORCHVISION)["model"] == {"torchvision": "resnet18", "args": {"num_classes": 7}}


def test_other_scripts_say_their_settings_but_no_model(save) -> None:
    assert document(save, model="mine", rho=0.25, lr=0.5) == {"sam": {"rho": 0.25, "lr": 0.5}}
    assert document(save, model="mine") == {}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"conv.weight": (8, 3, 3, 3), "fc.weight": (5, 8), "fc.bias": (5,)}, 5),
        ({"classifier.6.weight": (5, 8), "classifier.6.bias": (5,)}, 5),
        ({"heads.head.weight": (5, 8)}, 5),
        ({"decoder.weight": (5, 8)}, None),
        ({"fc.weight": (5, 8), "decoder.weight": (9, 8)}, None),
        ({"conv.weight": (8, 3, 3, 3)}, None),
        ({}, None),
    ],
)
def test_number_of_classes(shapes: dict[str, tuple[int, ...]], expected: int | None) -> None:
    assert find_num_classes(shapes) == expected
