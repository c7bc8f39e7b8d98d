"""What a checkpoint says about itself, without a model, data or a measurement: the value behind `samdiag info`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats.content import unhashed
from samdiag.formats.opening import open_checkpoint
from samdiag.formats.plain_data import as_table

if TYPE_CHECKING:
    from samdiag.formats.checkpoint import Checkpoint, TensorInfo

STATISTICS = ("running_mean", "running_var")  # floating-point tensors of batch norm that are no parameters
CONFIG_KEYS = ("architectures", "model_type", "dtype", "torch_dtype", "num_labels", "transformers_version")
ADAPTER_KEYS = ("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules")
FLOATS = ("float", "bfloat", "complex")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLine:
    """One tensor.

    Attributes:
        name: cleaned up, as in a model.
        dtype: as torch calls it.
        shape: of the tensor.
        num_bytes: of its values.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class DtypeShare:
    """All tensors of one dtype."""

    dtype: str
    num_tensors: int
    num_values: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HintLine:
    """A setting that the optimizer state reveals."""

    name: str
    value: Any
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedLine:
    """What a configuration inside the checkpoint says, under the keys of a samdiag.toml."""

    source: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One checkpoint as its header, its index and its optimizer state describe it. Everything in it is untrusted.

    Attributes:
        path: as the caller named it.
        format: "safetensors", "sharded", "huggingface", "torch-zip", "lightning", …
        file_bytes: size of the file; None for a folder.
        fingerprint: "sha256:<hex>"; None where it was not asked for.
        num_parameters: values in floating-point tensors, batch norm's running statistics not counted.
        num_bytes: of all tensors' values.
        dtypes: the largest share first.
        tensors: in the file's order.
        hints: from the optimizer state.
        embedded: from hyper-parameters, config.json, arguments; the nearest first.
        stamp: the spec embedded in a safetensors file.
        metadata: other texts of a safetensors header.
        hyper_parameters: what the training script saved of its own arguments.
        configuration: the telling keys of config.json and of adapter_config.json.
        notes: what the reader should know.
    """

    path: str
    format: str
    file_bytes: int | None
    fingerprint: str | None
    num_parameters: int
    num_bytes: int
    dtypes: tuple[DtypeShare, ...]
    tensors: tuple[TensorLine, ...]
    hints: tuple[HintLine, ...] = ()
    embedded: tuple[EmbeddedLine, ...] = ()
    stamp: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_summary(path: str | Path, *, fingerprint: bool = False) -> Summary:
    """The summary of the checkpoint at `path`; of safetensors from the headers alone, without torch.

    Args:
        path: a file or a folder.
        fingerprint: also read the whole file for its fingerprint.

    Raises:
        UsageError, CannotDecide: as `open_checkpoint`.
    """
    if fingerprint:
        return summarise(open_checkpoint(path), str(path))
    with unhashed():
        return summarise(open_checkpoint(path), str(path))


def summarise(checkpoint: Checkpoint, path: str) -> Summary:
    """The summary of an opened checkpoint.

    Args:
        checkpoint: it.
        path: as the caller named it.
    """
    tensors, notes = _tensors(checkpoint)
    return Summary(
        path=path,
        format=checkpoint.format,
        file_bytes=checkpoint.path.stat().st_size if checkpoint.path.is_file() else None,
        fingerprint=checkpoint.fingerprint or None,
        num_parameters=sum(line.num_values for line in tensors if _is_parameter(line)),
        num_bytes=sum(line.num_bytes for line in tensors),
        dtypes=_dtypes(tensors),
        tensors=tensors,
        hints=tuple(HintLine(name=n, value=h.value, source=h.source) for n, h in checkpoint.hints.items()),
        embedded=tuple(EmbeddedLine(source=said.source, document=said.document) for said in checkpoint.embedded),
        stamp=checkpoint.stamp,
        metadata=checkpoint.metadata,
        hyper_parameters=checkpoint.hyper_parameters,
        configuration=_chosen(checkpoint.config, CONFIG_KEYS) | _chosen(checkpoint.adapter, ADAPTER_KEYS),
        notes=(*checkpoint.notes, *notes),
    )


def _chosen(table: Mapping[str, Any] | None, keys: tuple[str, ...]) -> dict[str, Any]:
    """The entries of `table` under `keys`, as bounded plain data."""
    return as_table({key: table[key] for key in keys if key in table}) if table is not None else {}


def _tensors(checkpoint: Checkpoint) -> tuple[tuple[TensorLine, ...], tuple[str, ...]]:
    """The raw weights' tensors, or the averaged ones' where the file holds no others; and what kept them away."""
    try:
        infos = checkpoint.tensor_infos()
    except (CannotDecide, UsageError) as error:
        return (), (f"its tensors are not listed: {error.what}",)
    return tuple(_line(name, info) for name, info in infos.items()), ()


def _line(name: str, info: TensorInfo) -> TensorLine:
    return TensorLine(name=name, dtype=info.dtype, shape=info.shape, num_bytes=info.num_bytes)


def _is_parameter(line: TensorLine) -> bool:
    return line.dtype.startswith(FLOATS) and line.name.rpartition(".")[2] not in STATISTICS


def _dtypes(tensors: tuple[TensorLine, ...]) -> tuple[DtypeShare, ...]:
    groups: dict[str, list[TensorLine]] = {}
    for line in tensors:
        groups.setdefault(line.dtype, []).append(line)
    shares = [
        DtypeShare(
            dtype=dtype,
            num_tensors=len(lines),
            num_values=sum(line.num_values for line in lines),
            num_bytes=sum(line.num_bytes for line in lines),
        )
        for dtype, lines in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.num_bytes))
