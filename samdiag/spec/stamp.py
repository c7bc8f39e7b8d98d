"""A spec written into a checkpoint, so that the file alone says what it is a checkpoint of."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats.content import look_at
from samdiag.formats.safetensors_file import MAX_STAMP_CHARACTERS, STAMP_KEY, recognises
from samdiag.formats.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES, Header, read_header
from samdiag.quoting import listed, shown
from samdiag.spec.artifact import JUDGE_DATA_KEYS, forbidden_names
from samdiag.spec.parsing import flatten, nest, parse
from samdiag.spec.schema import SamSpec
from samdiag.whole_file import replacing

if TYPE_CHECKING:
    from samdiag.measure.settings import MeasureSettings

SOURCE = "stamp"
PARTS = ("model", "data", "loss")
NOT_A_STAMP = "your spec names code or files of your own; give it again as for the old checkpoint"
ALIGNMENT = 8  # bytes; the safetensors format asks that the tensors begin at a multiple of 8


def stamp(
    path: str | Path,
    *,
    model: str | Mapping[str, Any],
    data: str | Mapping[str, Any],
    loss: str | Mapping[str, Any] = "cross_entropy",
    rho: float | None = None,
    variant: str | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
    nesterov: bool | None = None,
    micro_batch: int | None = None,
) -> None:
    """The .safetensors file at `path` says what model, data, loss and SAM settings it belongs to; nothing is returned.

    The file is replaced in one step; its tensors keep their bytes, its other metadata stays, an older stamp goes.

    Args:
        path: a .safetensors file.
        model: a gallery name, or a table such as `{"gallery": "digits-mlp", "args": {"hidden": 64}}`.
        data: likewise.
        loss: a name such as "cross_entropy".
        rho, variant, lr, momentum, weight_decay, batch_size, nesterov, micro_batch: of the run that wrote the
            checkpoint, where known.

    Raises:
        UsageError: a value is not allowed, names code of one's own, or the file is no .safetensors file.
        CannotDecide: the file is damaged.
    """
    sam = {"rho": rho, "variant": variant, "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    sam |= {"batch_size": batch_size, "nesterov": nesterov, "micro_batch": micro_batch}
    said = {"model": model, "data": data, "loss": loss}
    document = nest(said | {f"sam.{key}": value for key, value in sam.items()}, SOURCE)
    text = _checked(document)
    content = look_at(Path(path))
    if not recognises(content):
        todo = "save the weights with safetensors.torch.save_file, or write the same keys into your samdiag.toml"
        raise UsageError(f"{content.name} is not a .safetensors file: only those have room for a stamp", todo)
    target = content.path.resolve()  # behind a symbolic link, the file itself is replaced
    _rewrite(target, read_header(target), text)


def stamp_for(
    said: Mapping[str, Any], old: Mapping[str, Any] | None, settings: MeasureSettings
) -> tuple[str | None, str]:
    """A stamp's text for the same model, data and loss under other settings, and a note; None, and why, if there is
    none.

    Args:
        said: the resolved settings by dotted name.
        old: the stamp that the checkpoint has; None: it has none, and `said` must be expressible as one.
        settings: rho and what goes with it.
    """
    whole: Mapping[str, Any] = old if old is not None and all(key in old for key in PARTS) else said
    if not all(key in whole for key in PARTS):
        return None, f"no stamp in the new file: {NOT_A_STAMP}"
    parts = {key: whole[key] for key in PARTS}
    note = ""
    if isinstance(parts["data"], Mapping):
        dropped = [key for key in JUDGE_DATA_KEYS if key in parts["data"]]
        parts["data"] = {key: value for key, value in parts["data"].items() if key not in dropped}
        note = f"a stamp cannot say data.{' and data.'.join(dropped)}: give it again" if dropped else ""
    fields = type(settings).__dataclass_fields__
    changed = [key for key in SamSpec.model_fields if getattr(settings, key) != fields[key].default]
    named = [key for key in SamSpec.model_fields if f"sam.{key}" in said]
    sam = {f"sam.{key}": getattr(settings, key) for key in dict.fromkeys([*named, *changed])}
    try:
        return _checked(nest(parts | sam, SOURCE)), note
    except UsageError:
        return None, f"no stamp in the new file: {NOT_A_STAMP}"


def _checked(document: dict[str, Any]) -> str:
    """The stamp as JSON, or UsageError where a reader would refuse it."""
    forbidden = forbidden_names(document)
    if forbidden:
        what = f"a stamp may not name code or paths of your own: {listed(forbidden)}"
        raise UsageError(what, "name them in your samdiag.toml; a stamp names what is in the catalog")
    judged = [key for key in JUDGE_DATA_KEYS if isinstance(document["data"], Mapping) and key in document["data"]]
    if judged:
        what = f"a stamp has no say in how it is judged: data.{' and data.'.join(judged)}"
        raise UsageError(what, "set it in your samdiag.toml")
    said = nest(flatten(parse(document, SOURCE)), SOURCE)
    text = json.dumps(said, allow_nan=False, sort_keys=True)
    if len(text) > MAX_STAMP_CHARACTERS:
        raise UsageError(f"the stamp has {len(text)} characters, more than {MAX_STAMP_CHARACTERS}", "shorten its args")
    return text


def _rewrite(path: Path, header: Header, text: str) -> None:
    """The file with another header before the same data, put in place in one step."""
    document = {**header.raw, "__metadata__": {**header.metadata, STAMP_KEY: text}}
    encoded = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % ALIGNMENT)
    if len(encoded) > MAX_HEADER_BYTES:
        raise CannotDecide(f"{shown(path)} has no room for a stamp: its header is full", "use a samdiag.toml instead")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with replacing(path, mode=mode) as beside, open(beside, "wb") as new, path.open("rb") as old:
            new.write(len(encoded).to_bytes(LENGTH_BYTES, "little") + encoded)
            old.seek(header.data_start)
            shutil.copyfileobj(old, new, length=1 << 20)
    except OSError as error:
        raise CannotDecide(
            f"{shown(path)} cannot be stamped: {error.strerror}", "check space and permissions"
        ) from None
