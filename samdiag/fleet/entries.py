"""One checkpoint of a list, and what is asked about all of them. Plain and picklable; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samdiag.probes import Verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One diagnosis to be made.

    Attributes:
        path: as the user named it, or the named folder with what was found in it.
        step: the training step that its name says; None where it says none.
        seed: `measure.seed` for this entry, where several seeds are asked for; None: the settings' own.
    """

    path: str
    step: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked about every checkpoint of a list: the arguments of `pipeline.inspect` that are not its path."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None
    cwd: Path = field(default_factory=Path.cwd)
    cross_check: bool = False
    warm_start: str | None = None
    verify: Verify | None = None
