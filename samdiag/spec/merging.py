"""Many origins become one set of settings: the nearest wins, and what it overruled is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import shown
from samdiag.spec.parsing import WHOLE
from samdiag.types import Setting, Shadowed, Trust

PARTS = ("model", "data", "loss")
DEFAULTS: Mapping[str, Any] = {
    "sam.variant": "sam",
    "sam.momentum": 0.0,
    "sam.nesterov": False,
    "sam.dampening": 0.0,
    "sam.weight_decay": 0.0,
    "sam.weight_decay_in": "update",
    "measure.mode": "eval",
    "measure.jacobian": "auto",
    "measure.samples": 2048,  # enough for a top eigenvalue within some per cent; minutes, not hours, on a CPU
    "measure.seed": 0,
    "measure.device": "auto",
    "measure.dtype": "auto",
    "measure.tol": 0.01,  # relative; verdicts compare intervals, so that a tighter one rarely changes them
    "measure.num_eigenvalues": 5,
    "gate.fail_on": None,  # every finding of severity error
    "weights": "raw",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the names of modules and files that an origin says are looked up.

    Attributes:
        folder: what `file.py:name` is relative to.
        importable: whether `module:name` may come from `folder`, as with `python -m`: on the command line only.
    """

    folder: Path
    importable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One speaker: who it is, how far it is trusted and what it says by dotted name."""

    source: str
    trust: Trust
    values: Mapping[str, Any]
    place: Place | None = None
    pythonpath: tuple[Path, ...] = field(default=())

    @property
    def is_user(self) -> bool:
        return self.trust in {Trust.CLI, Trust.PROJECT}


DEFAULT_ORIGIN = Origin(source="default", trust=Trust.DEFAULT, values=DEFAULTS)

EXAMPLE = """add a samdiag.toml to the folder you work in (or the same keys under [tool.samdiag] in pyproject.toml):
    problem = "train:problem"  # in train.py: def problem(): return samdiag.Problem(model=..., loss=..., batches=...)
    pythonpath = ["."]
or say it on the command line: --problem train.py:problem
or write it into a .safetensors checkpoint whose model is in the catalog:
    samdiag.stamp("CKPT", model="digits-mlp", data="digits", loss="cross_entropy", rho=0.05)"""


def merge(origins: Sequence[Origin]) -> tuple[dict[str, Setting], dict[str, Place]]:
    """Every setting by dotted name, and the place of each of problem, model, data and loss that is used.

    Args:
        origins: nearest first; the defaults are added.

    Raises:
        UsageError: nobody says what the problem is, or only in part.
    """
    speakers = [*origins, DEFAULT_ORIGIN]
    used, pool = _choose_problem(origins)
    settings: dict[str, Setting] = {}
    places: dict[str, Place] = {}
    for name in used:
        ordered = [*pool, *(origin for origin in origins if origin not in pool)]
        settings[name] = _setting(name, ordered)
        place = next(origin.place for origin in pool if name in origin.values)
        if place is not None:
            places[name] = place
    others = dict.fromkeys(name for origin in speakers for name in origin.values if name not in WHOLE)
    settings |= {name: _setting(name, speakers) for name in others}
    return settings, places


def _setting(name: str, origins: Iterable[Origin]) -> Setting:
    """The nearest origin's value; the rest are shadowed, in order."""
    nearest, *rest = [origin for origin in origins if name in origin.values]
    shadowed = tuple(Shadowed(value=origin.values[name], source=origin.source) for origin in rest)
    return Setting(value=nearest.values[name], source=nearest.source, trust=nearest.trust, shadowed=shadowed)


def _choose_problem(origins: Sequence[Origin]) -> tuple[tuple[str, ...], list[Origin]]:
    """Which of problem, model, data and loss are used, and the origins they may come from, nearest first.

    The user's own origins (command line, --config, project file) combine; an artifact is taken whole or not at all.
    """
    speakers = [origin for origin in origins if any(name in origin.values for name in WHOLE)]
    if not speakers:
        raise UsageError("nothing says which model, data and loss the checkpoint belongs to", EXAMPLE)
    users = [origin for origin in speakers if origin.is_user]
    pool = users or speakers[:1]
    used = ("problem",) if "problem" in pool[0].values else PARTS
    missing = [name for name in used if not any(name in origin.values for origin in pool)]
    if missing:
        raise _incomplete(missing, pool, speakers)
    return used, pool


def _incomplete(missing: list[str], pool: Sequence[Origin], speakers: Sequence[Origin]) -> UsageError:
    """Which parts nobody says, and why what others say about them is not used."""
    given = [name for name in PARTS if any(name in origin.values for origin in pool)]
    what = f"{' and '.join(given)} said by {pool[0].source}, but nothing says {' or '.join(missing)}"
    for origin in speakers:
        said = [name for name in (*missing, "problem") if name in origin.values]
        if said and origin not in pool:
            what += f"; {origin.source} says {' and '.join(said)}, but does not complete what somebody else began"
        elif said:
            what += f"; problem ({origin.source}) is a whole of its own and is not combined with parts"
    flags = " ".join(f"--{name} {_example(name, speakers)}" for name in missing)
    lines = "\n".join(f'    {name} = "{_example(name, speakers)}"' for name in missing)
    return UsageError(what, f"add {flags}, or to your samdiag.toml:\n{lines}")


def _example(name: str, speakers: Sequence[Origin]) -> str:
    """What to write for a missing part: what somebody says about it where that is one word, else an example."""
    for origin in speakers:
        value = origin.values.get(name)
        if isinstance(value, Mapping):
            word = value.get("gallery") or (value.get("name") if name == "loss" else None)
            if isinstance(word, str) and word.replace("-", "_").isidentifier():
                return shown(word)
    return {"loss": "cross_entropy"}.get(name, f"train.py:{name}")
