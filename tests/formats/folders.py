"""Checkpoint folders written by hand, honest or not, where a library would write only honest ones."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)


def write_shards(folder: Path, shards: Mapping[str, Mapping[str, Tensor]], **index: Any) -> Path:
    """A sharded checkpoint of these files and tensors; `index` replaces what its index says."""
    folder.mkdir(exist_ok=True)
    for file, tensors in shards.items():
        if file.endswith(".bin"):
            torch.save(dict(tensors), folder / file)
        else:
            save_file(dict(tensors), folder / file)
    honest = {name: file for file, tensors in shards.items() for name in tensors}
    kind = "pytorch_model.bin" if next(iter(shards)).endswith(".bin") else "model.safetensors"
    path = folder / f"{kind}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": honest, **index}))
    return path


def streams(values: Mapping[Any, Any]) -> tuple[bytes, dict[Any, tuple[int, int]]]:
    """Streams of torch.save one after another, and where each begins and how long it is."""
    data, places = b"", {}
    for key, value in values.items():
        buffer = io.BytesIO()
        torch.save(value, buffer)
        places[key] = (len(data), len(buffer.getvalue()))
        data += buffer.getvalue()
    return data, places


def pieces(name: str, tensor: Tensor, num: int = 1) -> dict[MetadataIndex, Tensor]:
    """The tensor cut along its first axis as torch.distributed.checkpoint would store it."""
    found, row = {}, 0
    for part in tensor.chunk(num) if tensor.dim() else [tensor]:
        found[MetadataIndex(name, (row, *(0,) * (tensor.dim() - 1)) if tensor.dim() else ())] = part.clone()
        row += part.shape[0] if tensor.dim() else 0
    return found


def write_distributed(
    folder: Path,
    stored: Mapping[MetadataIndex, Tensor],
    shapes: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
    *,
    paths: Mapping[str, tuple[str | int, ...]] | None = None,
    file: str = "__0_0.distcp",
    properties: TensorProperties | None = None,
    transforms: list[str] | None = None,
    metadata: Any = None,
) -> Path:
    """A torch.distributed.checkpoint folder with torch's own metadata classes; the arguments may lie."""
    folder.mkdir(exist_ok=True)
    given = {MetadataIndex(name): value for name, value in (values or {}).items()}
    data, places = streams({**stored, **given})
    (folder / Path(file).name).write_bytes(data)
    entries: dict[str, Any] = {name: BytesStorageMetadata() for name in values or {}}
    for name, shape in shapes.items():
        own = {index: part for index, part in stored.items() if index.fqn == name}
        dtype = next(iter(own.values()), torch.zeros(0)).dtype
        entries[name] = TensorStorageMetadata(
            properties=properties or TensorProperties(dtype=dtype),
            size=torch.Size(shape),
            chunks=[ChunkStorageMetadata(index.offset or torch.Size(), part.shape) for index, part in own.items()],
        )
    whole = Metadata(
        state_dict_metadata=entries,
        planner_data=paths,
        storage_data={index: _StorageInfo(file, *place, transforms) for index, place in places.items()},
    )
    (folder / ".metadata").write_bytes(pickle.dumps(whole if metadata is None else metadata))
    return folder
