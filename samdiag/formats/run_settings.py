"""Training settings in what a script saved of its own arguments: rho, learning rate, momentum, batch size, …"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from samdiag.formats.checkpoint import Embedded, Hint
from samdiag.formats.optimizer_state import as_number, is_adam
from samdiag.quoting import listed, quoted

LEVELS = 3  # of nesting that is searched: {"cfg": {"optimizer": {"lr": …}}}
NAMES = {  # setting → the names that scripts have for it; the first that is there counts
    "rho": ("rho", "sam_rho"),
    "lr": ("lr", "learning_rate"),
    "momentum": ("momentum", "sgd_momentum"),
    "weight_decay": ("weight_decay", "wd"),
    "batch_size": ("batch_size", "train_batch_size"),
    "nesterov": ("nesterov",),
    "adaptive": ("adaptive", "sam_adaptive"),
}


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


ALLOWED: Mapping[str, Callable[[Any], bool]] = {
    "rho": _is_positive,
    "lr": _is_positive,
    "momentum": lambda value: _is_number(value) and 0 <= value < 1,
    "weight_decay": lambda value: _is_number(value) and value >= 0,
    "batch_size": lambda value: type(value) is int and value >= 1,
    "nesterov": _is_bool,
    "adaptive": _is_bool,
}


def read_settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """The `[sam]` table that a script's arguments amount to; what is absent, ambiguous or impossible is left out.

    The shallowest table that names a setting counts; where several of one depth disagree, none does.

    Args:
        table: plain data, see `plain_data.as_table`.
    """
    found: dict[str, Any] = {}
    for setting, names in NAMES.items():
        for level in _levels(table):
            values = [part[name] for part in level for name in names if name in part and part[name] is not None]
            values = [value for value in values if ALLOWED[setting](value)]
            if values:
                if all(value == values[0] for value in values):
                    found[setting] = values[0]
                break
    if "adaptive" in found:
        found["variant"] = "asam" if found.pop("adaptive") else "sam"
    return {name: float(value) if name in _FLOATS else value for name, value in found.items()}


_FLOATS = ("rho", "lr", "momentum", "weight_decay")


def _levels(table: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    level: list[Mapping[str, Any]] = [table]
    for _ in range(LEVELS):
        yield level
        level = [item for part in level for item in part.values() if isinstance(item, Mapping)]


def reconcile(
    embedded: Embedded, hints: Mapping[str, Hint], group: Mapping[str, Any] | None
) -> tuple[Embedded, tuple[str, ...]]:
    """`embedded` without what the optimizer state knows better, and a note where both disagree.

    A script's arguments are nearer than its optimizer state, but for the learning rate: there the arguments say where a
    schedule began, and the state where it was when the file was written. Adam has no momentum to speak of.

    Args:
        embedded: with its `sam` table.
        hints: of the optimizer state.
        group: the first parameter group; None where there is no optimizer state.
    """
    sam = dict(embedded.document.get("sam", {}))
    if group is not None and is_adam(group):
        sam.pop("momentum", None)
        sam.pop("nesterov", None)
    notes: list[str] = []
    if "sam.lr" in hints and "lr" in sam:
        said, last = sam.pop("lr"), hints["sam.lr"].value
        initial = as_number(group.get("initial_lr")) if group is not None else None
        if said not in (last, initial):
            notes.append(
                f"{embedded.source} say lr = {said:g}, the optimizer state {as_number(last):g}: the latter is used"
            )
    differing = [
        f"{name} = {quoted(value)} and {quoted(hints[f'sam.{name}'].value)}"
        for name, value in sam.items()
        if f"sam.{name}" in hints and hints[f"sam.{name}"].value != value
    ]
    if differing:
        notes.append(f"{embedded.source} and the optimizer state disagree ({listed(differing)}): the former are used")
    document = {**embedded.document, "sam": sam} if sam else {k: v for k, v in embedded.document.items() if k != "sam"}
    return Embedded(source=embedded.source, document=document), tuple(notes)
