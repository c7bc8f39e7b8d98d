"""What a training script saved beside the weights, as bounded plain data: hyper-parameters and arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from samdiag.formats.inert import Record

MAX_DEPTH = 16  # levels; hyper-parameters have two or three
MAX_VALUES = 10_000  # in all; a run has some hundred
MAX_CHARACTERS = 10_000  # of one text; a long path or prompt
OMEGACONF_CONTENT = "_content"  # of a DictConfig or ListConfig
OMEGACONF_VALUE = "_val"  # of a leaf


class _Dropped:
    """What stands for a value that is no plain data."""


DROPPED = _Dropped()


def as_table(saved: object) -> dict[str, Any]:
    """`saved` as a table of plain values: texts, numbers, bools, lists and tables; whatever else it holds is left out.

    Read are dictionaries, an `argparse.Namespace` and omegaconf's containers (their stand-ins).
    """
    found = _Reading().plain(saved, MAX_DEPTH)
    return found if isinstance(found, dict) else {}


class _Reading:
    """Counts the values that were kept, so that no file can ask for more than MAX_VALUES."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def plain(self, value: object, depth: int) -> Any:
        """`value` as plain data, or DROPPED."""
        self.left -= 1
        if self.left < 0 or depth < 0:
            return DROPPED
        if isinstance(value, Record):
            return self._record(value.fields, depth)
        if isinstance(value, Mapping):
            return self._table(value, depth)
        if isinstance(value, (list, tuple, set)):
            return self._list(value, depth)
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else DROPPED
        return value if isinstance(value, str) and len(value) <= MAX_CHARACTERS else DROPPED

    def _record(self, fields: Mapping[Any, Any], depth: int) -> Any:
        inner = next((key for key in (OMEGACONF_CONTENT, OMEGACONF_VALUE) if key in fields), None)
        return self._table(fields, depth) if inner is None else self.plain(fields[inner], depth - 1)

    def _table(self, items: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in items.items():
            if self.left < 0:
                break
            if isinstance(key, str) and len(key) <= MAX_CHARACTERS:
                found[key] = self.plain(item, depth - 1)
        return {key: item for key, item in found.items() if item is not DROPPED}

    def _list(self, items: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if self.left < 0:
                break
            found.append(self.plain(item, depth - 1))
        return [item for item in found if item is not DROPPED]
