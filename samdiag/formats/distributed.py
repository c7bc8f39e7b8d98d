"""Folders of torch.distributed.checkpoint: full weights put together from their shards, hints from the optimizer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats import distributed_optimizer
from samdiag.formats.checkpoint import EMA_BESIDE, Checkpoint, TensorInfo
from samdiag.formats.distributed_metadata import DTYPE_BYTES, METADATA, Layout, Path, read_layout
from samdiag.formats.folder import Folder, FolderFormat, fingerprint
from samdiag.formats.state_dict import EMA_KEYS, WEIGHT_KEYS, strip_prefixes
from samdiag.formats.steps import STEP_KEYS, step_in
from samdiag.quoting import listed

if TYPE_CHECKING:
    from torch import Tensor

    from samdiag.formats.momentum import Buffers


def recognises(folder: Folder) -> bool:
    """Whether it has the file in which torch.distributed.checkpoint says what lies where."""
    return METADATA in folder


def open_folder(folder: Folder) -> Checkpoint:
    """The Checkpoint; of its tensors only those are read that are asked for."""
    metadata = folder.file(METADATA)
    layout = read_layout(folder, metadata)
    optimizer = distributed_optimizer.read(layout)
    found = {which: _state_dict(folder, layout, optimizer.names, averaged=which == "ema") for which in ("raw", "ema")}
    if not found["raw"] and not found["ema"]:
        what = "an optimizer's state and no weights" if optimizer.names else "no tensors"
        raise CannotDecide(f"{folder.name} holds {what}", "name the folder of the model's weights")

    def read(which: str) -> dict[str, Tensor]:
        return _read(folder, layout, found[which], which)

    before, ascent_notes = distributed_optimizer.before_ascent(layout, optimizer, lambda: read("raw"))

    def load(which: str) -> dict[str, Tensor]:
        return dict(before) if before is not None and which == "raw" else read(which)

    def load_velocity() -> Buffers | None:
        return distributed_optimizer.read_velocity(layout, optimizer)

    notes = (EMA_BESIDE,) if found["ema"] else ()
    files = {name: content.fingerprint() for name, content in layout.files.items()}
    return Checkpoint(
        path=folder.path,
        format="torch-distributed",
        fingerprint=fingerprint({METADATA: metadata.fingerprint(), **files}),
        hints=optimizer.hints,
        notes=(*optimizer.notes, *ascent_notes, *notes),
        adam=optimizer.adam,
        step=_step(folder, layout),
        load=load,
        load_velocity=load_velocity,
        load_infos=lambda: _infos(layout, found["raw"] or found["ema"]),
    )


def _step(folder: Folder, layout: Layout) -> int | None:
    """What the values say that are kept beside the weights; a damaged one says nothing."""
    from samdiag.formats.distributed_data import read_value

    said = {}
    for name in (*STEP_KEYS, "epoch"):
        if name in layout.values:
            with contextlib.suppress(CannotDecide):
                said[name] = read_value(layout, name)
    return step_in(said, folder.path)


def _infos(layout: Layout, names: Mapping[str, str]) -> dict[str, TensorInfo]:
    """What the metadata say about the tensors; none of them is read."""
    infos = {own: layout.tensors[name] for name, own in names.items()}
    return strip_prefixes(
        {
            own: TensorInfo(
                dtype=stored.dtype,
                shape=stored.shape,
                num_bytes=math.prod(stored.shape) * DTYPE_BYTES[stored.dtype],
            )
            for own, stored in infos.items()
        }
    )


def _read(folder: Folder, layout: Layout, names: Mapping[str, str], which: str) -> dict[str, Tensor]:
    from samdiag.formats.distributed_data import read_tensors

    if not names:
        shown_as, other = ("EMA", "raw") if which == "ema" else ("raw", "ema")
        raise UsageError(f"{folder.name} holds no {shown_as} weights", f"ask for weights = {other}")
    tensors = read_tensors(layout, names)
    return strip_prefixes({own: tensors[name] for name, own in names.items()})


def _state_dict(folder: Folder, layout: Layout, taken: frozenset[str], *, averaged: bool) -> dict[str, str]:
    """Flat name → name in the model, of the one state dict among the tensors that are not the optimizer's."""
    found: dict[Path, dict[str, str]] = {}
    for name in layout.tensors:
        *place, own = _keys(layout, name)
        if name not in taken and bool(set(place) & set(EMA_KEYS)) == averaged:
            found.setdefault(tuple(place), {})[name] = str(own)
    usual = [place for place in found if place and place[-1] in WEIGHT_KEYS]
    if len(usual) == 1:
        return found[usual[0]]
    if () in found and not usual:
        return found[()]  # the model's own dictionary at the top, beside others: torchtitan
    if len(found) > 1:
        names = [".".join(map(str, place)) or "the top level" for place in usual or found]
        raise CannotDecide(
            f"{folder.name} holds several models: {listed(names)}", "save the weights of the one to inspect alone"
        )
    return next(iter(found.values()), {})


def _keys(layout: Layout, name: str) -> Path:
    """The keys that lead to a tensor; where the folder does not say them, the usual first ones are told by name."""
    if layout.nested:
        return layout.paths[name]
    first, dot, rest = name.partition(".")
    return (first, rest) if dot and first in (*WEIGHT_KEYS, *EMA_KEYS) else (name,)


FORMAT = FolderFormat(recognises=recognises, open=open_folder)
