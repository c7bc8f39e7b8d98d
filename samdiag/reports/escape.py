"""Makes text from a checkpoint harmless in every medium: no control character, no direction override, no line break.

What a medium reads as its own syntax is that medium's matter: `canvas` builds Rich `Text`, never read as markup.
"""

from __future__ import annotations

import unicodedata
from typing import Any

MAX_LENGTH = 2000  # a hostile field must not bury the verdict; no honest path, message or value is longer
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Cc: C0/C1 controls, ESC; Cf: bidi overrides, zero-width and tag characters; Cs: lone surrogates, which cannot be
# encoded; Co/Cn: no agreed look; Zl/Zp: line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: Any, *, limit: int = MAX_LENGTH) -> str:
    r"""`str(text)` on one line, with everything invisible spelled out (`\x1b`, `\u202e`, `\n`) and the length bounded.

    Ordinary Unicode (letters of any script, symbols, spaces) stays as it is.
    """
    raw = text if isinstance(text, str) else str(text)
    shown = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(_visible(character) for character in shown)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code <= 0xFF:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
