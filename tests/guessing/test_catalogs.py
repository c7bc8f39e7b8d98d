"""The index of architectures against the real libraries."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from samdiag.errors import UsageError
from samdiag.guessing import catalogs
from samdiag.guessing.architectures import model_names, read_index
from samdiag.guessing.fingerprints import body_hash, name_hash
from samdiag.guessing.hollow import hollow, shapes_of
from samdiag.guessing.outline import Outline
from tests import torchvision_ops
from tests.guessing.conftest import outline


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    torchvision_ops.declare()


def build(library: str, name: str, args: Mapping[str, Any]) -> nn.Module:
    """The libraries' own factories."""
    if library == "timm":
        import timm

        return timm.create_model(name, **args)
    from torchvision import models

    return models.get_model_builder(name)(**args)


def found(library: str, name: str, **args: Any) -> list[catalogs.Match]:
    model = hollow(functools.partial(build, library, name, args))
    return catalogs.find(Outline(shapes=shapes_of(model)), build)


@pytest.mark.parametrize(
    ("library", "name", "args", "expected"),
    [
        ("timm", "resnet18", {"num_classes": 7, "in_chans": 1}, {"num_classes": 7, "in_chans": 1}),
        ("timm", "vit_tiny_patch16_224", {"num_classes": 4, "img_size": 96}, {"num_classes": 4, "img_size": 96}),
        ("timm", "convnext_atto", {"num_classes": 2}, {"num_classes": 2}),
        ("torchvision", "mobilenet_v3_small", {"num_classes": 5}, {"num_classes": 5}),
        ("torchvision", "regnet_x_400mf", {"num_classes": 5}, {"num_classes": 5}),
    ],
)
def test_a_model_with_other_classes_is_found_and_confirmed(
    library: str, name: str, args: dict[str, Any], expected: dict[str, Any]
) -> None:
    matches = found(library, name, **args)
    assert matches[0].confirmed
    same = next(match for match in matches if match.name == name and match.library == library)
    assert same.confirmed
    assert same.args == expected


def test_another_width_is_not_taken_for_it() -> None:
    names = {match.name for match in found("timm", "wide_resnet50_2", num_classes=3)}
    assert "wide_resnet50_2" in names
    assert "resnet50" not in names


def test_one_changed_shape_is_no_match() -> None:
    model = hollow(functools.partial(build, "timm", "resnet18", {}))
    shapes = shapes_of(model) | {"layer1.0.conv1.weight": (64, 64, 1, 1)}
    assert catalogs.find(Outline(shapes=shapes), build) == []


def test_a_library_that_is_not_there_leaves_the_name() -> None:
    def missing(library: str, name: str, args: Mapping[str, Any]) -> nn.Module:
        raise UsageError("model.timm needs timm, which is not installed", "install it")

    model = hollow(functools.partial(build, "timm", "resnet18", {"num_classes": 3}))
    match = catalogs.find(Outline(shapes=shapes_of(model)), missing)[0]
    assert (match.name, match.args, match.confirmed) == ("resnet18", {"num_classes": 3}, False)
    assert match.reason == "model.timm needs timm, which is not installed"


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_the_index_holds_what_the_library_makes(name: str) -> None:
    shapes = shapes_of(hollow(functools.partial(build, "timm", name, {})))
    rows = read_index()["architectures"][name_hash(shapes)]
    (row,) = [row for row in rows if row[:2] == ["timm", name]]
    assert row[3] == body_hash(shapes, row[2])


def test_the_index_knows_its_versions_and_all_models() -> None:
    assert set(read_index()["versions"]) == {"timm", "torchvision", "torch"}
    assert len(model_names("timm")) > 1300
    assert {"resnet18", "vit_b_16", "regnet_y_128gf"} <= set(model_names("torchvision"))


def test_batch_norm_counters_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = list(model.state_dict())
    assert name_hash(names) == name_hash([name for name in names if "num_batches" not in name])


def test_the_papers_functions_share_one_tensor_and_are_no_answer() -> None:
    from samdiag.gallery.functions import beale_model

    assert catalogs.find_gallery(outline(beale_model())) == []


def test_a_plain_network_is_in_no_catalog() -> None:
    assert catalogs.find(outline(nn.Sequential(nn.Linear(3, 2))), build) == []
