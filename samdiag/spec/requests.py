"""What a builder of models or data is asked for: a name of a closed catalog, plain arguments, and who said so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint
from samdiag.quoting import quoted, shown
from samdiag.types import Trust

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An entry of a closed catalog, with its arguments.

    Attributes:
        library: "timm", "torchvision", …: a key of the registry's table.
        name: the entry, or the path that stands in its place.
        args: plain JSON.
        source: who said it, for messages.
        trust: how far that speaker is trusted.
        folder: what paths are relative to.
        checkpoint: what the model or data belongs to.
    """

    library: str
    name: str
    args: Mapping[str, Any]
    source: str
    trust: Trust
    folder: Path
    checkpoint: Checkpoint

    @property
    def from_artifact(self) -> bool:
        return self.trust is Trust.ARTIFACT

    def path(self, said: str, key: str) -> Path:
        """The file or folder that `said` names, relative to whoever said it.

        Raises:
            UsageError: there is none, it is no local path, or an artifact said it.
        """
        if self.from_artifact:
            what = f"{self.source} names a path: {key} = {quoted(said)}"
            raise UsageError(what, "name it in your own samdiag.toml, or on the command line")
        if "://" in said or "::" in said or said.startswith("pipe:") or "\0" in said:
            raise UsageError(f"{key} = {quoted(said)} is no local path", "download it first and name the file")
        path = self.folder / Path(said).expanduser()
        if not path.exists():
            raise UsageError(f"{key} names {quoted(said)}: there is no such file", f"looked in {shown(self.folder)}")
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest(Request):
    """A model asked for.

    Attributes:
        config: the path of a config.json, as said; None: the checkpoint's own.
    """

    config: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest(Request):
    """Data asked for.

    Attributes:
        split: "train", …; None where nobody said it.
        paths: root, data_files and tokenizer, as said.
        seed: of whatever is drawn once (masks).
        download: whether the command line asks for --download.
    """

    split: str | None = None
    paths: Mapping[str, Any]
    seed: int = 0
    download: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a builder of models returns."""

    module: nn.Module
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a builder of data returns.

    Attributes:
        returned: a map-style Dataset, or batches.
        collate: how a Dataset's samples become a batch; None: torch's own way.
        notes: one line each.
    """

    returned: Any
    collate: Callable[[list[Any]], Any] | None = None
    notes: tuple[str, ...] = ()
