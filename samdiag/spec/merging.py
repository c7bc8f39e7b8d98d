"""Many origins become one set of settings: the nearest wins, and what it overruled is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import shown
from samdiag.spec.parsing import WHOLE
from samdiag.spec.toml_text import assignment
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
    "gate.require": None,
    "gate.strict_spec": False,
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

INIT = "`samdiag init CKPT`"
LONGEST_LINE = 1000  # characters of a line to copy: a model's arguments fit, a flood does not
EXAMPLE = """let `samdiag init CKPT` write a samdiag.toml, or add one to the folder you work in
(or the same keys under [tool.samdiag] in pyproject.toml):
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


def known(origins: Sequence[Origin]) -> dict[str, Setting]:
    """Every setting that anybody says or that has a default, whether or not they make a problem."""
    speakers = [*origins, DEFAULT_ORIGIN]
    names = dict.fromkeys(name for origin in speakers for name in origin.values)
    ordered = [*(name for name in WHOLE if name in names), *(name for name in names if name not in WHOLE)]
    return {name: _setting(name, speakers) for name in ordered}


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
    """Which parts nobody says, why what others say about them is not used, and the lines that say all."""
    given = [name for name in PARTS if any(name in origin.values for origin in pool)]
    what = f"{' and '.join(given)} said by {pool[0].source}, but nothing says {' or '.join(missing)}"
    for origin in speakers:
        said = [name for name in (*missing, "problem") if name in origin.values]
        if said and origin not in pool:
            what += f"; {origin.source} says {' and '.join(said)}, but does not complete what somebody else began"
        elif said:
            what += f"; problem ({origin.source}) is a whole of its own and is not combined with parts"
    wanted = missing if pool[0].is_user else PARTS  # an artifact's part is not completed: the user says the whole
    flags = [f"--{name} {word}" for name in wanted if (word := _word(name, _example(name, speakers)[0])) is not None]
    lines = "\n".join(f"    {_line(name, speakers)}" for name in wanted)
    where = "to your samdiag.toml" if pool[0].is_user else "to a samdiag.toml in the folder you work in"
    if len(flags) == len(wanted):
        return UsageError(what, f"add {' '.join(flags)}, or {where}:\n{lines}")
    return UsageError(what, f"add {where} ({INIT} writes one):\n{lines}")


def _line(name: str, speakers: Sequence[Origin]) -> str:
    """The line of a samdiag.toml that says one part, and where the example comes from."""
    value, source = _example(name, speakers)
    word = _word(name, value)
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if item not in (None, {})}
    line = assignment(name, value if word is None else word)
    line = f"{line}  # as {source} says" if source else line
    return line if len(line) <= LONGEST_LINE else shown(line)


def _example(name: str, speakers: Sequence[Origin]) -> tuple[Any, str]:
    """What to write for a part: what somebody says about it, and who; else an example."""
    for origin in speakers:
        if name in origin.values:
            return origin.values[name], origin.source
    if name != "loss":
        return f"train.py:{name}", ""
    model = _example("model", speakers)[0]
    computes_loss = isinstance(model, Mapping) and "transformers" in model
    return "model" if computes_loss else "cross_entropy", ""


def _word(name: str, value: Any) -> str | None:
    """The value as the one word that a flag takes; None where it takes a table to say it."""
    if isinstance(value, Mapping):
        said = {key: item for key, item in value.items() if item not in (None, {})}
        value = said.get("name" if name == "loss" else "gallery", said.get("python")) if len(said) == 1 else None
    return value if isinstance(value, str) and re.fullmatch(r"[\w.:/-]+", value, re.ASCII) else None
