"""Plain JSON values out of the project's dataclasses, with no invalid number in them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any


def as_object(value: Any) -> dict[str, Any]:
    """A dataclass as the JSON object of `jsonable`."""
    encoded = jsonable(value)
    assert isinstance(encoded, dict)
    return encoded


def jsonable(value: Any) -> Any:
    """`value` as JSON-safe builtins: dataclasses become objects, tuples arrays, and non-finite floats strings.

    "Infinity", "-Infinity" and "NaN" are the spellings that `float()` and JavaScript's `Number()` read back.
    """
    match value:
        case None | bool() | int():
            return value
        case Enum():  # before str: a StrEnum is both
            return value.value
        case str():
            return value
        case float():
            return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return str(value)
