"""The training step that the name of a checkpoint says."""

from __future__ import annotations

import re
from pathlib import Path

_SAID = re.compile(r"(?:step|iter|iteration|checkpoint|ckpt|epoch)[-_=]?(\d+)", re.IGNORECASE)


def step_in_name(path: str | Path) -> int | None:
    """The last number that follows a word for a step in the file's or folder's own name; None where there is none."""
    found = _SAID.findall(Path(path).name)
    return int(found[-1]) if found else None
