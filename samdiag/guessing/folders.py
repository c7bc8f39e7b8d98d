"""Image folders, torchvision's data sets and text in the working folder that fit the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdiag.guessing.data_files import DataGuess
from samdiag.guessing.outline import Outline, times

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TRAINING = ("train", "training", "trn")
MAX_LOOKED_AT = 24  # images whose size is compared
IMAGENET_SIDE = 224  # what timm's and torchvision's models were made for, where nothing else is known
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
NO_TEXTS = ("requirements", "license", "licence", "readme", "vocab", "merges", "notice", "constraints")
MIN_TEXT_BYTES = 200  # less is a note, not data


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A data set of torchvision: where it lies below its root, and what a network for it looks like."""

    marker: str
    name: str
    classes: int
    shape: tuple[int, int, int]


SETS = (
    *(Known(marker=f"{name}/raw", name=name, classes=10, shape=(1, 28, 28)) for name in ("MNIST", "FashionMNIST")),
    *(Known(marker=f"{name}/raw", name=name, classes=10, shape=(1, 28, 28)) for name in ("KMNIST", "QMNIST")),
    Known(marker="cifar-10-batches-py", name="CIFAR10", classes=10, shape=(3, 32, 32)),
    Known(marker="cifar-100-python", name="CIFAR100", classes=100, shape=(3, 32, 32)),
    Known(marker="train_32x32.mat", name="SVHN", classes=10, shape=(3, 32, 32)),
    Known(marker="stl10_binary", name="STL10", classes=10, shape=(3, 96, 96)),
    Known(marker="usps.bz2", name="USPS", classes=10, shape=(1, 16, 16)),
    Known(marker="food-101", name="Food101", classes=101, shape=(3, -1, -1)),
    Known(marker="flowers-102", name="Flowers102", classes=102, shape=(3, -1, -1)),
    Known(marker="dtd/dtd", name="DTD", classes=47, shape=(3, -1, -1)),
    Known(marker="gtsrb/GTSRB", name="GTSRB", classes=43, shape=(3, -1, -1)),
    Known(marker="oxford-iiit-pet", name="OxfordIIITPet", classes=37, shape=(3, -1, -1)),
    Known(marker="eurosat/2750", name="EuroSAT", classes=10, shape=(3, 64, 64)),
)


def torchvision_sets(paths: list[Path], folder: Path, outline: Outline) -> Iterator[DataGuess]:
    """A guess for each of torchvision's data sets that lies in the working folder."""
    for path in paths:
        name = path.relative_to(folder).as_posix()
        for known in SETS:
            if name != known.marker and not name.endswith(f"/{known.marker}"):
                continue
            root = name.removesuffix(known.marker).rstrip("/") or "."
            reasons = _unlike(known, outline)
            value: dict[str, Any] = {"torchvision": known.name, "root": root, "split": "train"}
            if -1 in known.shape:
                value["args"] = {"size": IMAGENET_SIDE}
            lies = f"{known.name} lies in {root}"
            why = f"{lies}: {'; '.join(reasons)}" if reasons else f"{lies}; how its pixels were normalised is not known"
            if outline.num_inputs is not None and not reasons:
                why += f"; the model must flatten its images of {times(known.shape)}"
            yield DataGuess(
                value=value, why=why, fits=not reasons, exact=not reasons, loss="cross_entropy", targets="classes"
            )


def image_folders(paths: list[Path], folder: Path, outline: Outline, side: int | None) -> Iterator[DataGuess]:
    """A guess for each folder whose subfolders hold images and are as many as the outputs.

    Args:
        paths: what lies in the working folder.
        folder: the working folder.
        outline: of the checkpoint.
        side: of the images that the model takes, where that is known.
    """
    if outline.input_channels not in {1, 3} or outline.num_outputs is None:
        return
    folders = [path for path in paths if path.is_dir()]
    by_class = [path for path in folders if _classes(path)]
    by_class.sort(key=lambda path: path.name.lower() not in TRAINING)
    for path in by_class:
        classes = _classes(path)
        why = f"{len(classes)} subfolders with images"
        if len(classes) != outline.num_outputs:
            why += f", and there are {outline.num_outputs} outputs"
        value: dict[str, Any] = {"folder": path.relative_to(folder).as_posix()}
        args = _preparation(classes, outline, side)
        yield DataGuess(
            value=value | ({"args": args} if args else {}),
            why=f"{why}; how the pixels were normalised is not known",
            fits=len(classes) == outline.num_outputs,
            exact=len(classes) == outline.num_outputs,
            loss="cross_entropy",
            targets="classes",
        )


def texts(paths: list[Path], folder: Path, checkpoint: Path, model: Mapping[str, Any]) -> Iterator[DataGuess]:
    """A guess for each text file, where the model is one of language and its tokenizer lies with the checkpoint."""
    name = str(model.get("transformers", ""))
    beside = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if not any(word in name for word in ("CausalLM", "LMHead", "MaskedLM")):
        return
    if not any((beside / tokenizer).is_file() for tokenizer in TOKENIZERS):
        return
    for path in paths:
        plain = path.suffix == ".txt" and path.is_file() and not path.name.lower().startswith(NO_TEXTS)
        if plain and not path.resolve().is_relative_to(beside.resolve()) and path.stat().st_size >= MIN_TEXT_BYTES:
            file = path.relative_to(folder).as_posix()
            yield DataGuess(
                value={
                    "datasets": "text",
                    "data_files": file,
                    "tokenizer": "checkpoint",
                    "args": {"task": "masked_lm" if "MaskedLM" in name else "causal_lm"},
                },
                why=f"{file} is text, and the tokenizer lies with the checkpoint",
                fits=True,
                targets="the words themselves",
            )


def _unlike(known: Known, outline: Outline) -> list[str]:
    """What of a data set does not agree with the network."""
    channels, height, width = known.shape
    reasons = []
    if outline.num_outputs is not None and outline.num_outputs != known.classes:
        reasons.append(f"it has {known.classes} classes, and there are {outline.num_outputs} outputs")
    if outline.input_channels is not None and outline.input_channels != channels:
        reasons.append(f"its images have {channels} channels, and the first layer takes {outline.input_channels}")
    if outline.num_inputs is not None and (height < 0 or outline.num_inputs != channels * height * width):
        reasons.append(f"the first layer takes {outline.num_inputs} numbers")
    return reasons


def _classes(folder: Path) -> list[Path]:
    """The subfolders, where all of them hold images; none for a single one."""
    try:
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []
    return inner if len(inner) > 1 and all(next(_images(path), None) is not None for path in inner) else []


def _images(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if path.suffix.lower() in IMAGES and path.is_file())
    except OSError:
        return


def _preparation(classes: list[Path], outline: Outline, side: int | None) -> dict[str, Any]:
    """What the images need to become inputs: one size for all, grey where the network takes one channel."""
    args: dict[str, Any] = {"grayscale": True} if outline.input_channels == 1 else {}
    sizes = _sizes([image for path in classes for image in list(_images(path))[:2]][:MAX_LOOKED_AT])
    if side is not None and sizes != {(side, side)}:
        args["size"] = side
    elif len(sizes) != 1:
        args["size"] = IMAGENET_SIDE
    return args


def _sizes(images: list[Path]) -> set[tuple[int, int]]:
    """Width and height of each image, from its header alone; empty where Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError:
        return set()
    sizes = set()
    for path in images:
        try:
            with Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")) as image:
                sizes.add(image.size)
        except Exception:  # Pillow raises many kinds for what is no image
            continue
    return sizes
