"""Networks, problems and data found in source files that are read and never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from samdiag.guessing import own_code
from samdiag.guessing.packages import find_package
from samdiag.guessing.sources import Source, modules, read_folder
from tests.guessing.conftest import outline

NETWORKS = """
raise SystemExit("this file was run")
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 8)

class Small(Base):
    def __init__(self, num_classes=10, pretrained=True):
        super().__init__()
        self.fc = nn.Linear(8, num_classes)

class Wide(Base):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 16)
        self.fc = nn.Linear(16, 3)

class Counted(nn.Module):
    def __init__(self, size="large"):
        super().__init__()
        width = 8 if size == "tiny" else 16
        for number in range(2):
            self.add_module(f"layer{number}", nn.Linear(width, width))

class NoNetwork:
    def __init__(self):
        self.stem = self.fc = None

def make_small() -> nn.Module:
    return Small()

def sequence():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
"""
DATA = """
import samdiag
from torch.utils.data import Dataset
from torch.nn import functional as F
def data(): ...
def loaders(path): ...
def everything() -> "Dataset": ...
def loss(model, batch): return F.cross_entropy(model(batch[0]), batch[1])
def masked(model, batch): ...
def distance(model, other): ...
def whole() -> samdiag.Problem: ...
class Images(Dataset):
    def __init__(self, train=True): ...
class Elsewhere(Dataset):
    def __init__(self, root): ...
"""


def network(stem: int, outputs: int) -> nn.Module:
    return nn.ModuleDict({"stem": nn.Linear(4, stem), "fc": nn.Linear(stem, outputs)})


@pytest.fixture
def sources(folder: Path) -> list[Source]:
    (folder / "nets.py").write_text(NETWORKS)
    (folder / "broken.py").write_text("def (:")
    (folder / "binary.py").write_bytes(b"\x00\xff")
    (folder / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    return read_folder(folder)


def test_files_that_are_no_python_are_passed_over(sources: list[Source]) -> None:
    assert [source.reference for source in sources] == ["nets.py"]


def test_networks_are_known_by_what_they_derive_from(sources: list[Source]) -> None:
    assert set(modules(sources)) == {"Base", "Small", "Wide", "Counted"}


def test_the_class_with_the_tensors_names_and_sizes(sources: list[Source]) -> None:
    found = own_code.networks(sources, outline(network(8, 10)), "a")
    assert [named.reference for named in found] == ["nets.py:make_small", "nets.py:Small"]
    (wide,) = own_code.networks(sources, outline(network(16, 3)), "a")
    assert wide.reference == "nets.py:Wide"


def test_arguments_are_read_off_the_tensors(sources: list[Source]) -> None:
    found = own_code.networks(sources, outline(network(8, 7)), "a")
    small = next(named for named in found if named.reference.endswith("Small"))
    assert small.args == {"num_classes": 7, "pretrained": False}


@pytest.mark.parametrize(("stem", "args"), [("crepe-tiny", {"size": "tiny"}), ("crepe", {})])
def test_a_size_is_read_off_the_file_name(sources: list[Source], stem: str, args: dict[str, Any]) -> None:
    module = nn.ModuleDict({"layer0": nn.Linear(8, 8), "layer1": nn.Linear(8, 8)})
    (counted,) = own_code.networks(sources, outline(module), stem)
    assert (counted.reference, counted.args) == ("nets.py:Counted", args)


SIZED = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width=16, twice=16, rate=0.1):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, {second}))
def model():
    return Net()
"""


@pytest.mark.parametrize(
    ("second", "recorded", "args", "unknown"),
    [
        ("3", {}, {"width": 24}, ()),
        ("3", {"width": 99, "rate": 0.5, "seed": 1}, {"width": 24, "rate": 0.5}, ()),  # the tensors know better
        ("twice // 2", {}, {"width": 24}, ("twice",)),
        ("twice // 2", {"twice": 6}, {"width": 24, "twice": 6}, ()),
        ("width // 8", {}, {"width": 24}, ()),
    ],
)
def test_a_default_of_other_sizes_is_never_complete(
    folder: Path, second: str, recorded: dict[str, Any], args: dict[str, Any], unknown: tuple[str, ...]
) -> None:
    (folder / "train.py").write_text(SIZED.replace("{second}", second))
    made = nn.ModuleDict({"stem": nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3))})
    (net,) = own_code.networks(read_folder(folder), outline(made), "a", recorded)
    assert (net.reference, net.args, net.unknown) == ("train.py:Net", args, unknown)


def test_a_wrapper_around_all_names(sources: list[Source]) -> None:
    wrapped = nn.ModuleDict({"model": network(16, 3)})
    assert [named.reference for named in own_code.networks(sources, outline(wrapped), "a")] == ["nets.py:Wide"]


def test_a_sequential(sources: list[Source]) -> None:
    made = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    assert [named.reference for named in own_code.networks(sources, outline(made), "a")] == ["nets.py:sequence"]
    longer = nn.Sequential(*made, nn.Linear(3, 3))
    assert not [named for named in own_code.networks(sources, outline(longer), "a") if "sequence" in named.reference]


def test_nothing_matches(sources: list[Source]) -> None:
    assert own_code.networks(sources, outline(nn.ModuleDict({"other": nn.Linear(2, 2)})), "a") == []


def test_data_losses_and_problems(folder: Path) -> None:
    (folder / "train.py").write_text(DATA)
    sources = read_folder(folder)
    assert [named.reference for named in own_code.data(sources)] == [
        "train.py:data",
        "train.py:everything",
        "train.py:Images",
    ]
    assert [named.reference for named in own_code.losses(sources)] == ["train.py:loss", "train.py:masked"]
    assert [named.reference for named in own_code.problems(sources)] == ["train.py:whole"]
    assert own_code.losses_called(sources) == ["cross_entropy"]


def test_a_class_that_derives_from_a_librarys(folder: Path) -> None:
    (folder / "model.py").write_text(
        "class Own(AlbertForMaskedLM): ...\nclass Other(AlbertForMaskedLM):\n  def __init__(self, size): ..."
    )
    found = own_code.derived(read_folder(folder), "AlbertForMaskedLM")
    assert [named.reference for named in found] == ["model.py:Own"]


def test_a_package_and_those_above_it_are_read_and_not_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "site" / "outer" / "inner"
    inner.mkdir(parents=True)
    (folder / "site" / "outer" / "__init__.py").write_text("raise SystemExit('imported')")
    (inner / "__init__.py").write_text("raise SystemExit('imported')")
    (inner / "nets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(folder / "site")
    for said in ("outer", "outer.inner", "site/outer"):
        package = find_package(said, folder)
        found = own_code.networks(list(package.sources), outline(network(16, 3)), "a")
        assert [named.reference for named in found] == ["outer.inner.nets:Wide"]
        assert package.pythonpath == ("site" if "/" in said else None)
