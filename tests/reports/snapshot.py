"""Comparison with a kept file; `SAMDIAG_UPDATE_SNAPSHOTS=1` rewrites the files instead."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "snapshots"


def matches(name: str, text: str) -> bool:
    """True when `text` is what the snapshot `name` holds (always, after rewriting it, in update mode)."""
    path = FOLDER / name
    if os.environ.get("SAMDIAG_UPDATE_SNAPSHOTS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8") == text + "\n"
