"""A folder with one subfolder of images for each class, in alphabetical order: what torchvision's ImageFolder reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.data.images import MAX_BYTES, SUFFIXES, Preparation, decode
from samdiag.spec.data.labelled_images import LabelledImages, collate
from samdiag.spec.data.options import Options
from samdiag.spec.libraries import library
from samdiag.spec.requests import Data, DataRequest

KEY = "data.folder"
MAX_IMAGES = 5_000_000  # ImageNet has 1.3 million


def build(request: DataRequest) -> Data:
    """Pairs (image, class), the classes numbered in the order of their names; `split` is a subfolder.

    Args of the request: those of `Preparation`.

    Raises:
        UsageError: the folder, its split, or an image in it is not there.
    """
    library("PIL.Image", key=KEY, extra="images")
    options = Options(request)
    preparation = Preparation.of(options)
    options.finish()
    root = request.path(request.name, KEY)
    if request.split is not None:
        if Path(request.split).name != request.split or request.split == "..":
            raise UsageError(f"data.split = {quoted(request.split)} is no name", "name a subfolder of the folder")
        root = root / request.split
    if not root.is_dir():
        raise UsageError(f"{shown(root)} is no folder", f"correct {KEY} or data.split")
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    found = [(file, number) for number, name in enumerate(classes) for file in _images(root / name)]
    if not found:
        what = f"{shown(root)} has no subfolders with images"
        inside = f" (its subfolders: {listed(classes)}; data.split names one)" if classes else ""
        raise UsageError(what + inside, "put the images of each class into a subfolder of their own")
    if len(found) > MAX_IMAGES:
        raise UsageError(f"{shown(root)} has more than {MAX_IMAGES} images", "name a folder with fewer")
    files, targets = zip(*found, strict=True)
    return Data(returned=LabelledImages(files, targets, _read, preparation), collate=collate)


def _images(folder: Path) -> list[Path]:
    """The images in a class's folder and below, in a fixed order."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def _read(file: Path) -> tuple[Any, str]:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise CannotDecide(f"the image {shown(file)} cannot be read: {error.strerror}", "check it") from None
    if len(content) > MAX_BYTES:
        raise CannotDecide(f"the image {shown(file)} is larger than {MAX_BYTES} bytes", "replace or remove it")
    return decode(content, str(file)), str(file)
