"""The value that a checkpoint file becomes. Everything in it is untrusted data; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import UsageError
from samdiag.quoting import shown

if TYPE_CHECKING:
    from torch import Tensor

    from samdiag.formats.momentum import Buffers

WEIGHTS = ("raw", "ema")
EMA_BESIDE = "averaged (EMA) weights are there as well: --weights ema measures them"
EMA_USED = "the averaged (EMA) weights are measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A setting that the file reveals without being asked, e.g. `sam.rho` in its optimizer state.

    Attributes:
        value: a plain float or string, as found; not yet checked for range.
        source: where it was found, as a person would say it ("optimizer state").
    """

    value: float | str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What a checkpoint's own configuration says about it, beside a stamp.

    The `config.json` of a Hugging Face directory, the `args` of a timm file, the hyper-parameters of a Lightning file.

    Attributes:
        source: where it was found, as a person would say it ("config.json").
        document: plain data under the keys of a samdiag.toml (`{"model": {"timm": "resnet18"}, "sam": {"lr": 0.1}}`),
            untrusted.
    """

    source: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A tensor without its values.

    Attributes:
        dtype: as torch calls it ("float32", "bfloat16").
        shape: of the tensor.
        num_bytes: of its values.
    """

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint: what it is, what it says about itself, and its weights on demand.

    Attributes:
        path: the file or folder, as the caller named it.
        format: of the formats in `registry.FORMATS` and `registry.FOLDERS`: "safetensors", "huggingface", …
        fingerprint: "sha256:<hex>" of the whole file; of a folder, of the files that are read; "" where nothing was to
            be hashed (`content.unhashed`).
        stamp: the spec embedded under the safetensors metadata key `samdiag`; None when there is none. Untrusted.
        embedded: what other configuration inside it says, the nearest first. Untrusted.
        hints: settings found in optimizer state, by dotted name (`sam.rho`, `sam.lr`, …). Untrusted.
        config: the parsed `config.json` of a Hugging Face directory, also of a file named directly in one; plain JSON.
            Untrusted.
        adapter: the parsed `adapter_config.json` of a PEFT directory, whose `weights()` are then the adapter's own
            tensors. Plain JSON. Untrusted.
        metadata: other texts that a safetensors header carries. Untrusted.
        hyper_parameters: what the training script saved of its own arguments, bounded plain data. Untrusted.
        notes: what the reader of a report should know about the file, one line each.
        adam: its optimizer state is of the Adam family.
        step: the training step that it says itself, apart from its name; None where it says none. Untrusted.
        load: reads the tensors; use `weights`.
        load_velocity: reads the momentum buffers; use `velocity`.
        load_infos: reads what the header says about the tensors; use `tensor_infos`.
    """

    path: Path
    format: str
    fingerprint: str
    stamp: Mapping[str, Any] | None = None
    embedded: tuple[Embedded, ...] = ()
    hints: Mapping[str, Hint] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    adapter: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    adam: bool = False
    step: int | None = None
    load: Callable[[str], dict[str, Tensor]] = field(repr=False, compare=False)
    load_velocity: Callable[[], Buffers | None] | None = field(default=None, repr=False, compare=False)
    load_infos: Callable[[], dict[str, TensorInfo]] | None = field(default=None, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where the checkpoint's files lie: the folder that it is, or that it lies in."""
        path = self.path.absolute()
        return path if path.is_dir() else path.parent

    def weights(self, which: str = "raw") -> dict[str, Tensor]:
        """The tensors by cleaned-up name (no `module.`, `_orig_mod.`, `_fsdp_wrapped_module.`), on the CPU, as stored.

        Args:
            which: "raw", or "ema" for the exponential moving average where the file holds one.

        Raises:
            UsageError: `which` is unknown, or the file has no such weights.
            CannotDecide: the tensors cannot be read, or the file changed since it was opened.
        """
        if which not in WEIGHTS:
            raise UsageError(f"weights = {shown(which)} is unknown", f"choose one of: {', '.join(WEIGHTS)}")
        return self.load(which)

    def velocity(self) -> Buffers | None:
        """The momentum buffers of the raw weights' optimizer; None where the file holds none."""
        return self.load_velocity() if self.load_velocity is not None else None

    def tensor_infos(self) -> dict[str, TensorInfo]:
        """Dtype, shape and size of every raw tensor by cleaned-up name, in the file's order.

        Of safetensors from the headers alone, without torch; of the EMA weights where there are no others.

        Raises:
            CannotDecide: the tensors cannot be read.
        """
        if self.load_infos is not None:
            return self.load_infos()
        return {
            name: TensorInfo(
                dtype=str(value.dtype).removeprefix("torch."),
                shape=tuple(value.shape),
                num_bytes=value.numel() * value.element_size(),
            )
            for name, value in self.load("raw").items()
        }
