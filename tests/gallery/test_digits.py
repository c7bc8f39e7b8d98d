"""The digits: what was shipped is what the source says it is."""

from __future__ import annotations

import pytest
import torch

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.gallery.digits import dataset, mlp

# how often each digit occurs in the test part of the UCI data set, from the data set's own description
COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_shapes_and_types() -> None:
    inputs, targets = dataset().tensors
    assert inputs.shape == (1797, 64)
    assert inputs.dtype is torch.float32
    assert targets.shape == (1797,)
    assert targets.dtype is torch.int64


def test_pixels_are_sixteenths_in_the_unit_interval() -> None:
    inputs, _ = dataset().tensors
    assert inputs.min() == 0
    assert inputs.max() == 1
    assert torch.equal((16 * inputs).round(), 16 * inputs)


def test_labels_occur_as_often_as_in_the_source() -> None:
    _, targets = dataset().tensors
    assert targets.bincount().tolist() == COUNTS


def test_images_belong_to_their_labels() -> None:
    """The nearest class mean is right for about nine in ten digits: impossible with shuffled labels."""
    inputs, targets = dataset().tensors
    means = torch.stack([inputs[targets == label].mean(dim=0) for label in range(10)])
    assert (torch.cdist(inputs, means).argmin(dim=1) == targets).to(torch.float32).mean() > 0.88


def test_every_call_returns_data_of_its_own() -> None:
    dataset().tensors[0].zero_()
    assert dataset().tensors[0].any()


def test_the_default_network_has_2410_parameters() -> None:
    assert sum(parameter.numel() for parameter in mlp().parameters()) == 2410


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_network_returns_ten_logits(activation: str, depth: int) -> None:
    inputs, _ = dataset().tensors
    assert mlp(hidden=5, activation=activation, depth=depth)(inputs[:7]).shape == (7, 10)


@pytest.mark.parametrize(
    "arguments",
    [{"activation": "softmax"}, {"hidden": 0}, {"hidden": 10**9}, {"hidden": "32"}, {"hidden": True}, {"depth": 0}],
)
def test_unusable_arguments_are_usage_errors(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        mlp(**arguments)  # type: ignore[arg-type]


def test_the_catalog_leads_here() -> None:
    assert registry.load(registry.CATALOG_MODELS["gallery"]["digits-mlp"]) is mlp
    assert registry.load(registry.CATALOG_DATA["gallery"]["digits"]) is dataset
