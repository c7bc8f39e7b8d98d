"""torchvision's image classification data sets, from the user's own disk; fetched only with --download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.data.images import Preparation
from samdiag.spec.data.labelled_images import collate
from samdiag.spec.data.options import Options
from samdiag.spec.libraries import library
from samdiag.spec.requests import Data, DataRequest
from samdiag.suggesting import did_you_mean
from samdiag.user_errors import user_code

KEY = "data.torchvision"
DEFAULT_ROOT = "data"  # torchvision's own examples keep their data sets there


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How a data set takes its split.

    Attributes:
        splits: name → the arguments that choose it.
        downloads: whether torchvision can fetch it.
        options: further arguments that it takes, all texts.
    """

    splits: Mapping[str, Mapping[str, Any]]
    downloads: bool = True
    options: tuple[str, ...] = ()


TRAIN_TEST = Entry(splits={"train": {"train": True}, "test": {"train": False}})
SPLIT_TRAIN_TEST = Entry(splits={"train": {"split": "train"}, "test": {"split": "test"}})
SPLIT_ALL = Entry(splits={name: {"split": name} for name in ("train", "val", "test")})
# only sets of (image, class); CIFAR's files are pickles, which torchvision opens after their md5 sums were found right
SETS: Mapping[str, Entry] = {
    **dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST", "USPS", "CIFAR10", "CIFAR100"), TRAIN_TEST),
    "QMNIST": TRAIN_TEST,
    "EMNIST": Entry(splits=TRAIN_TEST.splits, options=("split",)),
    "SVHN": Entry(splits={name: {"split": name} for name in ("train", "test", "extra")}),
    "STL10": SPLIT_TRAIN_TEST,
    "Food101": SPLIT_TRAIN_TEST,
    "GTSRB": SPLIT_TRAIN_TEST,
    "Flowers102": SPLIT_ALL,
    "DTD": SPLIT_ALL,
    "FGVCAircraft": SPLIT_ALL,
    "RenderedSST2": SPLIT_ALL,
    "OxfordIIITPet": Entry(splits={"train": {"split": "trainval"}, "test": {"split": "test"}}),
    "EuroSAT": Entry(splits={"train": {}}),
    "ImageNet": Entry(splits={"train": {"split": "train"}, "val": {"split": "val"}}, downloads=False),
    "Imagenette": Entry(splits={"train": {"split": "train"}, "val": {"split": "val"}}, options=("size",)),
}


class Prepared(Dataset[Any]):
    """A data set of Pillow images, each made an input when asked for."""

    def __init__(self, images: Any, preparation: Preparation, name: str) -> None:
        self.images, self.preparation, self.name = images, preparation, name

    def __getitem__(self, index: int) -> Any:
        label = f"{index} of {self.name}"
        try:
            image, target = self.images[index]
        except SamdiagError:
            raise
        except Exception as error:
            raise CannotDecide(f"the image {label} cannot be read: {shown(error)}", "check the files") from error
        return self.preparation.tensor(image, label), int(target)

    def __len__(self) -> int:
        return len(self.images)


def build(request: DataRequest) -> Data:
    """Pairs (image, class) of the data set in `root`.

    Args of the request: those of `Preparation`, and the data set's own (`split` of EMNIST as `kind`).

    Raises:
        UsageError: torchvision has no such set of classified images, it is not in `root`, or has no such split.
    """
    name = request.name
    if name not in SETS:
        what = f"torchvision has no data set of classified images named {quoted(name)}{did_you_mean(name, SETS)}"
        raise UsageError(what, f"choose one of: {', '.join(SETS)}; or a function of your own: data = 'module:factory'")
    entry = SETS[name]
    datasets = library("torchvision.datasets", key=KEY, extra="torchvision")
    options = Options(request)
    own = {option: found for option in entry.options if (found := options.optional_text(_said(option))) is not None}
    preparation = Preparation.of(options)
    options.finish()
    split = request.split or "train"
    if split not in entry.splits:
        what = f"{name} has no split {quoted(split)}{did_you_mean(split, entry.splits)}"
        raise UsageError(what, f"choose {' or '.join(entry.splits)}")
    root = _root(request)
    arguments = {"root": str(root), **entry.splits[split], **own}
    if entry.downloads:
        arguments["download"] = request.download
    with user_code(f"data (torchvision {name})", _todo(entry, root)):
        images = getattr(datasets, name)(**arguments)
    return Data(returned=Prepared(images, preparation, name), collate=collate)


def _said(option: str) -> str:
    """What a spec calls a data set's own argument where its name is taken."""
    return {"split": "kind", "size": "version"}.get(option, option)


def _root(request: DataRequest) -> Path:
    said = request.paths.get("root")
    if said is not None and not request.download:
        return request.path(str(said), "data.root")
    return request.folder / Path(str(said or DEFAULT_ROOT)).expanduser()


def _todo(entry: Entry, root: Path) -> str:
    where = f'looked in {shown(root)}: name another with data.root = "…"'
    return f"{where}, or fetch it with --download" if entry.downloads else where
