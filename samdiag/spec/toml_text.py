"""Plain data as TOML text, whatever is in it: no string can end its quotes, and no comment its line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
MAX_COMMENT = 400  # characters of a comment line: what came from a checkpoint must not drown the file


def assignment(name: str, value: Any) -> str:
    """`name = value` on one line."""
    return f"{key(name)} = {literal(value)}"


def literal(value: Any) -> str:
    """`value` in TOML, tables inline; entries that are None are left out, because TOML has no word for them.

    Raises:
        TypeError: it is no plain data.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case str():
            return f'"{"".join(map(_escaped, value))}"'
        case Mapping():
            said = {name: item for name, item in value.items() if item is not None}
            return f"{{ {', '.join(assignment(str(name), item) for name, item in said.items())} }}" if said else "{}"
        case list() | tuple():
            return f"[{', '.join(literal(item) for item in value if item is not None)}]"
    raise TypeError(f"{type(value).__name__} is no plain data")


def key(name: str) -> str:
    """A key, quoted where it must be."""
    return name if BARE_KEY.fullmatch(name) else literal(name)


def comment(text: object) -> str:
    """`# text` on one line, harmless whatever the text contains."""
    line = str(text)
    if len(line) > MAX_COMMENT:
        line = f"{line[:MAX_COMMENT]}…"
    return f"# {''.join(character if character.isprintable() else _code(character) for character in line)}".rstrip()


def _escaped(character: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    return character if character.isprintable() else _code(character)


def _code(character: str) -> str:
    number = ord(character)
    if 0xD800 <= number <= 0xDFFF:  # half a surrogate pair is no character and TOML cannot write it
        number = 0xFFFD
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _float(value: float) -> str:
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    text = repr(value)
    return text if "." in text or "e" not in text else text.replace("e", ".0e")  # 1e-05 is TOML too; 1.0e-05 is plainer
