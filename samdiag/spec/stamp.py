"""A spec written into a checkpoint, so that the file alone says what it is a checkpoint of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import UsageError
from samdiag.formats.safetensors_file import MAX_STAMP_CHARACTERS
from samdiag.quoting import listed
from samdiag.spec.artifact import JUDGE_DATA_KEYS, forbidden_names
from samdiag.spec.catalog import find_in_gallery
from samdiag.spec.parsing import flatten, nest, parse
from samdiag.spec.schema import SamSpec
from samdiag.spec.stamp_place import write_text
from samdiag.types import Setting, Trust

if TYPE_CHECKING:
    from samdiag.measure.settings import MeasureSettings

SOURCE = "stamp"
PARTS = ("model", "data", "loss")
NOT_A_STAMP = "your spec names code or files of your own; give it again as for the old checkpoint"


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
    dampening: float | None = None,
    weight_decay_in: str | None = None,
    alpha: float | None = None,
    eta_a: float | None = None,
) -> None:
    """The safetensors checkpoint at `path` says what model, data, loss and SAM settings it belongs to; returns None.

    The file is replaced in one step; its tensors keep their bytes, its other metadata stays, an older stamp goes.

    Args:
        path: a .safetensors file, or a Hugging Face directory whose weights are one.
        model: a gallery name, or a table such as `{"gallery": "digits-mlp", "args": {"hidden": 64}}`.
        data: likewise.
        loss: a name such as "cross_entropy".
        rho, variant, lr, momentum, weight_decay, batch_size, nesterov, micro_batch, dampening, weight_decay_in, alpha,
            eta_a: of the run that wrote the checkpoint, where known; as in `samdiag.diagnose`.

    Raises:
        UsageError: a value is not allowed, names code of one's own, or the file is no .safetensors file.
        CannotDecide: the file is damaged.
    """
    sam = {"rho": rho, "variant": variant, "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    sam |= {"batch_size": batch_size, "nesterov": nesterov, "micro_batch": micro_batch}
    sam |= {"dampening": dampening, "weight_decay_in": weight_decay_in, "alpha": alpha, "eta_a": eta_a}
    said = {"model": model, "data": data, "loss": loss} | {f"sam.{key}": value for key, value in sam.items()}
    write_text(path, checked(nest(said, SOURCE)))


def document_of(settings: Mapping[str, Setting]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The stamp that the resolved settings of a user amount to, and what of them a stamp cannot say, one line each.

    Raises:
        UsageError: they name a problem function, which no stamp can.
    """
    if "problem" in settings:
        what = f"problem ({settings['problem'].source}) is code of your own, which a stamp may not name"
        raise UsageError(what, "give --model, --data and --loss from the catalog")
    said: dict[str, Any] = {key: settings[key].value for key in PARTS}
    said["data"], dropped = _without_judge(said["data"])
    notes = [f"data.{key} is left out: a stamp has no say in how it is judged" for key in dropped]
    trusted = (Trust.PROJECT, Trust.CLI)
    sam = {name: s.value for name, s in settings.items() if name.startswith("sam.") and s.trust in trusted}
    return nest(said | sam, SOURCE), tuple(notes)


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
    parts["data"], dropped = _without_judge(parts["data"])
    note = f"a stamp cannot say data.{' and data.'.join(dropped)}: give it again" if dropped else ""
    fields = type(settings).__dataclass_fields__
    changed = [key for key in SamSpec.model_fields if getattr(settings, key) != fields[key].default]
    named = [key for key in SamSpec.model_fields if f"sam.{key}" in said]
    sam = {f"sam.{key}": getattr(settings, key) for key in dict.fromkeys([*named, *changed])}
    try:
        return _written(nest(parts | sam, SOURCE)), note
    except UsageError:
        return None, f"no stamp in the new file: {NOT_A_STAMP}"


def _without_judge(data: Any) -> tuple[Any, list[str]]:
    """What a stamp may say about the data, and the keys that say how it is judged."""
    dropped = [key for key in JUDGE_DATA_KEYS if isinstance(data, Mapping) and key in data]
    return ({key: value for key, value in data.items() if key not in dropped} if dropped else data), dropped


def checked(document: dict[str, Any]) -> str:
    """The stamp as JSON, or UsageError where a reader would refuse it or the gallery has no such name."""
    text = _written(document)
    said = json.loads(text)
    for part in ("model", "data"):
        if "gallery" in said[part]:
            find_in_gallery(part, said[part]["gallery"])
    return text


def _written(document: dict[str, Any]) -> str:
    """The stamp as JSON, or UsageError where a reader would refuse it."""
    forbidden = forbidden_names(document)
    if forbidden:
        what = f"a stamp may not name code or paths of your own: {listed(forbidden)}"
        raise UsageError(what, "name them in your samdiag.toml; a stamp names what is in the catalog")
    _, judged = _without_judge(document["data"])
    if judged:
        what = f"a stamp has no say in how it is judged: data.{' and data.'.join(judged)}"
        raise UsageError(what, "set it in your samdiag.toml")
    said = nest(flatten(parse(document, SOURCE)), SOURCE)
    text = json.dumps(said, allow_nan=False, sort_keys=True)
    if len(text) > MAX_STAMP_CHARACTERS:
        raise UsageError(f"the stamp has {len(text)} characters, more than {MAX_STAMP_CHARACTERS}", "shorten its args")
    return text
