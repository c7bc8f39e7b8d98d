"""Inputs, outputs and layers read off real modules' state dicts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samdiag.guessing.outline import Outline, fits
from tests.guessing.conftest import outline


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(50, 8)
        self.position_embeddings = nn.Embedding(100, 8)
        self.body = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 4)


class Separable(nn.Module):
    """Its first layer has three channels, and its depthwise one has kernels of one."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Conv2d(16, 16, 3, groups=16)
        self.conv_stem = nn.Conv2d(3, 16, 3)
        self.head = nn.Linear(16, 7)


MLP = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
GREY = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8, 5))


@pytest.mark.parametrize(
    ("module", "outputs", "channels", "inputs"),
    [(MLP, 10, None, 784), (GREY, 5, 1, None), (Separable(), 7, 3, None), (Words(), 4, None, 8)],
)
def test_first_and_last_layer(module: nn.Module, outputs: int, channels: int | None, inputs: int | None) -> None:
    found = outline(module)
    assert (found.num_outputs, found.input_channels, found.num_inputs) == (outputs, channels, inputs)


def test_the_order_in_the_file_does_not_matter() -> None:
    found = Outline(shapes=dict(reversed(list(outline(MLP).shapes.items()))))
    assert (found.num_outputs, found.num_inputs) == (10, 784)


def test_an_input_of_784_may_be_an_image() -> None:
    assert outline(MLP).input_shapes == ((784,), (1, 28, 28))
    assert outline(GREY).input_shapes == ((1, -1, -1),)


def test_words() -> None:
    found = outline(Words())
    assert found.vocabulary == 50
    assert found.input_shapes == ()


def test_without_a_module_that_all_share() -> None:
    wrapped = outline(nn.ModuleDict({"model": MLP}))
    inner = wrapped.without_first()
    assert inner is not None
    assert inner.shapes == outline(MLP).shapes
    assert outline(MLP).without_first() is None


def test_layers_are_listed_and_cut() -> None:
    assert outline(MLP).layers() == ["0: weight 32x784, bias 32", "2: weight 10x32, bias 10"]
    assert outline(MLP).layers(1)[-1] == "… and 1 more modules"


def test_nothing_to_read_off() -> None:
    found = Outline(shapes={"x": (), "weight": (3,)})
    assert (found.num_outputs, found.first, found.input_shapes) == (None, None, ())


def test_natural_order() -> None:
    deep = nn.Sequential(*(nn.Linear(4, 4) for _ in range(11)), nn.Linear(4, 3))
    shapes = dict(sorted(outline(deep).shapes.items()))  # as safetensors sorts: 10 before 2
    assert Outline(shapes=shapes).head == "11"


def test_fits() -> None:
    assert fits((3, 32, 32), (3, -1, -1))
    assert not fits((1, 32, 32), (3, -1, -1))
    assert not fits((3, 32), (3, -1, -1))


def test_a_single_number() -> None:
    assert Outline(shapes={"w": tuple(torch.zeros(2).shape)}).num_parameters == 2
