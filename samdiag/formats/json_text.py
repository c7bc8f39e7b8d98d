"""JSON from a file of somebody else's: strict, and bounded in depth."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The JSON value of `text`; ValueError where it is invalid, nested too deeply, or names a key twice."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")  # json would also take UTF-16 and lone surrogates
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names a key twice")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def is_deeper(value: Any, depth: int) -> bool:
    """Whether `value` nests more than `depth` levels of objects and arrays, without recursion."""
    level = [value]
    for _ in range(depth):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(item, (dict, list)) for item in level)
