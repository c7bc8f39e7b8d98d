"""Hugging Face datasets from the user's own disk: save_to_disk folders, and text, JSON, CSV, Parquet or image files."""

from __future__ import annotations

import contextlib
import glob
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.data import text
from samdiag.spec.data.images import MAX_BYTES, Preparation, decode
from samdiag.spec.data.labelled_images import LabelledImages, collate
from samdiag.spec.data.options import Options
from samdiag.spec.data.tables import Table, build_table
from samdiag.spec.libraries import library
from samdiag.spec.requests import Data, DataRequest
from samdiag.suggesting import did_you_mean
from samdiag.user_errors import user_code

KEY = "data.datasets"
BUILDERS = ("text", "json", "csv", "parquet", "imagefolder")
CORRECT = "correct the files, or name others"


def build(request: DataRequest) -> Data:
    """The data set as pairs (image, class), as tables of tokens, or as its own columns of numbers.

    Args of the request: see docs/catalogs.md.

    Raises:
        UsageError: the files are not there, or say too little about what is the input and what the target.
    """
    datasets = library("datasets", key=KEY, extra="datasets")
    table = Table(rows=_opened(datasets, request), source=f"{KEY} = {quoted(request.name)}")
    images = [name for name, kind in table.rows.features.items() if isinstance(kind, datasets.Image)]
    options = Options(request)
    if images:
        return _images(datasets, table, images[0], options)
    texts = table.texts()
    if request.paths.get("tokenizer") is not None or (texts and "input_ids" not in table.names):
        return text.build_texts(request, table, options)
    return build_table(table, options)


def _opened(datasets: Any, request: DataRequest) -> Any:
    """The datasets.Dataset, of one split."""
    if request.name in BUILDERS:
        return _built(datasets, request)
    path = request.path(request.name, KEY) if _is_local(request) else None
    if path is None or not path.is_dir():
        near = did_you_mean(request.name, BUILDERS)
        what = f"{KEY} = {quoted(request.name)} is neither a folder nor one of {', '.join(BUILDERS)}{near}"
        raise UsageError(what, "data sets of the hub are not fetched: load it yourself and save_to_disk(folder)")
    with _calling(f"data (datasets {shown(request.name)})"):
        found = datasets.load_from_disk(str(path))
    if isinstance(found, datasets.DatasetDict):
        split = request.split or "train"
        if split not in found:
            what = f"{shown(path)} has no split {quoted(split)}{did_you_mean(split, found)}"
            raise UsageError(what, f"choose {listed(found)}")
        return found[split]
    if request.split is not None and str(found.split or request.split) != request.split:
        raise UsageError(f"{shown(path)} is the split {quoted(str(found.split))}", "correct data.split")
    return found


def _is_local(request: DataRequest) -> bool:
    """Whether the name can be a folder: what an artifact says never is."""
    if request.from_artifact:
        return False
    return "://" in request.name or (request.folder / Path(request.name).expanduser()).exists()


def _built(datasets: Any, request: DataRequest) -> Any:
    """The rows that a builder of the library itself makes of local files; the split is one of them all."""
    arguments: dict[str, Any]
    if request.name == "imagefolder":
        root = request.paths.get("root")
        if root is None:
            raise UsageError(f"{KEY} = 'imagefolder' needs the folder of its images", 'add root = "path" beside it')
        arguments = {"data_dir": str(request.path(str(root), "data.root").resolve())}
    else:
        arguments = {"data_files": [str(file) for file in _files(request)]}
    split = request.split or "train"
    with _calling(f"data (datasets {request.name})"):
        found = datasets.load_dataset(request.name, **arguments)
    if split not in found:
        what = f"{KEY} = {quoted(request.name)} has no split {quoted(split)}{did_you_mean(split, found)}"
        raise UsageError(what, f"leave it out: the files named are all {listed(found)}")
    return found[split]


def _files(request: DataRequest) -> list[Path]:
    """The local files named in data_files; `*` stands for many."""
    said = request.paths.get("data_files")
    if said is None:
        raise UsageError(f"{KEY} = {quoted(request.name)} needs its files", 'add data_files = "train.txt" beside it')
    found: list[Path] = []
    for name in said if isinstance(said, list) else [said]:
        if "*" in name and "://" not in name and "::" not in name and not request.from_artifact:
            files = sorted(glob.glob(str(request.folder / Path(name).expanduser())))
            if not files:
                raise UsageError(f"data.data_files names {quoted(name)}: no such files", CORRECT)
            found += [Path(file).resolve() for file in files]
        else:
            found.append(request.path(name, "data.data_files").resolve())
    return found


def _images(datasets: Any, table: Table, column: str, options: Options) -> Data:
    """Pairs (image, class) of an image column, decoded here: the library's own decoder opens addresses."""
    target = options.text("targets", "label" if "label" in table.names else "labels")
    preparation = Preparation.of(options)
    options.finish()
    table.check(target)
    rows = table.rows.cast_column(column, datasets.Image(decode=False))
    targets = [_class(value, target) for value in rows[target]]
    images = rows.select_columns([column])

    def read(index: int) -> tuple[Any, str]:
        label = f"{index} of {table.source}"
        return decode(_content(images[index][column], label), label), label

    return Data(returned=LabelledImages(range(len(targets)), targets, read, preparation), collate=collate)


def _content(found: Any, label: str) -> bytes:
    """The bytes of an image column's entry, out of the table or out of a local file that it names."""
    content = found.get("bytes") if isinstance(found, dict) else None
    path = found.get("path") if isinstance(found, dict) else None
    if content is None and isinstance(path, str) and "://" not in path and "::" not in path:
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise CannotDecide(f"the image {shown(label)} cannot be read: {error.strerror}", "check it") from None
    if not isinstance(content, bytes) or len(content) > MAX_BYTES:
        raise CannotDecide(f"the image {shown(label)} is not there, or too large", "write the images into the data set")
    return content


def _class(value: Any, column: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(
            f"the column {quoted(column)} has {quoted(value)}, and no class number", "name another: targets"
        )
    return value


@contextlib.contextmanager
def _calling(what: str) -> Any:
    """The library's exceptions as ours, its progress bars off."""
    datasets = sys.modules["datasets"]
    off: Callable[[], None] = datasets.disable_progress_bars
    off()
    with user_code(what, CORRECT), contextlib.redirect_stdout(sys.stderr):
        yield
