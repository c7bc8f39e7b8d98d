"""Tensors in a .safetensors or .npz file: pairs of `inputs` and `targets`, or columns by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from samdiag.errors import UsageError
from samdiag.formats.content import look_at
from samdiag.formats.safetensors_file import recognises
from samdiag.formats.safetensors_header import read_header
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.batches import Columns
from samdiag.spec.data.normalising import Normalisation
from samdiag.spec.data.numpy_archive import read_archive
from samdiag.spec.data.options import Options
from samdiag.spec.requests import Data, DataRequest
from samdiag.suggesting import did_you_mean

KEY = "data.tensors"
INPUTS, TARGETS = "inputs", "targets"
ZIP = b"PK\x03\x04"
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32)


def build(request: DataRequest) -> Data:
    """Pairs where the file has inputs and targets, else batches that are tables of its columns.

    Args of the request: `inputs` and `targets` (the names of the two tensors), `scale` (inputs are multiplied by it),
    `mean` and `std` (one number, or one for each channel).

    Raises:
        UsageError: the file is neither kind, or its tensors do not belong together.
    """
    options = Options(request)
    names = options.text(INPUTS, INPUTS), options.text(TARGETS, TARGETS)
    normalisation = Normalisation.of(options)
    options.finish()
    if request.split is not None:
        raise UsageError(
            f"{KEY} has no splits, and split = {quoted(request.split)}", "leave split out, or name its file"
        )
    tensors, file = _read(request)
    tensors = {name: _integers_as_indices(value) for name, value in tensors.items()}
    if all(name in tensors for name in names):
        inputs, targets = (tensors[name] for name in names)
        _check_lengths({names[0]: inputs, names[1]: targets}, file)
        unused = [name for name in tensors if name not in names]
        notes = (f"{file}: {listed(unused)} not used: its {names[0]} and {names[1]} are the data",) if unused else ()
        if targets.dtype == torch.uint8:
            targets = targets.long()
        return Data(returned=TensorDataset(normalisation.apply(inputs), targets), notes=notes)
    for name, default in zip(names, (INPUTS, TARGETS), strict=True):
        if name != default or (name in tensors) != (names[0] in tensors):
            missing = next(name for name in names if name not in tensors)
            what = f"{file} has no {quoted(missing)}{did_you_mean(missing, tensors)}; it has {listed(tensors)}"
            raise UsageError(what, 'name both: args = { inputs = "x_train", targets = "y_train" }')
    if not normalisation.is_identity:
        raise UsageError(f"{file} has columns, and scale, mean and std are for inputs", "leave them out")
    _check_lengths(tensors, file)
    return Data(returned=Columns(tensors))


def _read(request: DataRequest) -> tuple[dict[str, Tensor], str]:
    """The tensors by name, and what to call the file."""
    path = request.path(request.name, KEY)
    if path.is_dir():
        raise UsageError(f"{KEY} = {quoted(request.name)} is a folder", "name the file, or data.folder for images")
    content = look_at(path)
    file = shown(path)
    if content.prefix.startswith(ZIP):
        tensors = read_archive(path)
    elif recognises(content):
        from safetensors.torch import load_file

        read_header(path)  # checked by hand before the library maps it
        tensors = load_file(path, device="cpu")
    else:
        what = f"{file} is neither a .safetensors nor an .npz file"
        raise UsageError(what, "write it with safetensors.torch.save_file or numpy.savez")
    if not tensors:
        raise UsageError(f"{file} holds no tensors", "write inputs and targets into it")
    return tensors, file


def _integers_as_indices(value: Tensor) -> Tensor:
    """Whole numbers as int64, as losses and embeddings want them; bytes and truth values stay."""
    return value.long() if value.dtype in INTEGERS else value


def _check_lengths(tensors: Mapping[str, Any], file: str) -> None:
    """Nothing, or UsageError unless all have the same first dimension."""
    flat = [name for name, value in tensors.items() if value.dim() == 0]
    if flat:
        raise UsageError(f"{file}: {shown(flat[0])} is a single number", "give every tensor one row for each sample")
    lengths = {name: len(value) for name, value in tensors.items()}
    if len(set(lengths.values())) > 1:
        said = listed(f"{name} {length}" for name, length in lengths.items())
        raise UsageError(f"{file}: the tensors have different numbers of samples: {said}", "give all of them as many")
    if not next(iter(lengths.values())):
        raise UsageError(f"{file} has no samples", "write at least one")
