"""The prescription as a file of settings, in TOML, JSON or YAML, for a training script to read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from samdiag.encoding import jsonable
from samdiag.errors import UsageError
from samdiag.remedies import Advice, Phase, Prescription, Schedule
from samdiag.reports.escape import printable
from samdiag.types import Diagnosis, Measurements

MARK = "samdiag prescription"  # the value of `format`, by which a file of ours is known
RECIPE_VERSION = 1  # of the file's layout

_Table = dict[str, Any]


def recipe(diagnosis: Diagnosis) -> _Table:
    """The prescription as nested builtins; what is not known or does not apply has no key.

    `action` is "change", "nothing" or "no recommendation". Phases are complete: each has every setting that is known,
    also where it stays. A phase without `steps` is the rest of the run, one without `batch_size` full batch.
    """
    p, m = diagnosis.prescription, diagnosis.measurements
    first = diagnosis.findings[0] if diagnosis.findings else None
    table = {
        "format": MARK,
        "format_version": RECIPE_VERSION,
        "written_by": f"samdiag {diagnosis.samdiag_version}".strip(),
        "verdict": diagnosis.verdict,
        "confidence": first.confidence if first else None,
        "action": action(diagnosis),
        "checkpoint": diagnosis.checkpoint,
        "current": _current(m) if m else None,
        "change": _changes(p) if p else None,
        "missing": p.missing if p else (),
        "notes": p.notes if p else (),
    }
    if p is not None and p.schedule is not None and m is not None:
        table["schedule"] = _schedule(p.schedule, m)
        table["alternatives"] = [_schedule(other, m) for other in p.alternatives]
    cleaned = _cleaned(jsonable(table))
    assert isinstance(cleaned, dict)
    return cleaned


def action(diagnosis: Diagnosis) -> str:
    """ "change" where there is a schedule, "nothing" where every setting is to be kept, else "no recommendation"."""
    p = diagnosis.prescription
    if p is not None and p.schedule is not None:
        return "change"
    advices = (p.rho, p.momentum, p.batch_size) if p is not None else ()
    settled = all(a.recommended == a.current for a in advices if a.recommended is not None or a.current is not None)
    return "nothing" if p is not None and settled and not p.missing else "no recommendation"


def _current(m: Measurements) -> _Table:
    names = ("variant", "rho", "lr", "momentum", "nesterov", "dampening", "weight_decay", "batch_size", "micro_batch")
    return {name: getattr(m, name) for name in names}


def _changes(p: Prescription) -> _Table:
    """from → to of every setting; without `to` nothing is recommended for it."""
    advices = {"rho": p.rho, "momentum": p.momentum, "batch_size": p.batch_size, "lr": p.lr}
    return {name: _change(advice) for name, advice in advices.items() if advice is not None}


def _change(advice: Advice) -> _Table:
    return {
        "from": advice.current,
        "to": advice.recommended,
        "binding": advice.binding,
        "reason": advice.reason,
        "source": advice.source,
    }


def _schedule(schedule: Schedule, m: Measurements) -> _Table:
    phases, first = [], 0
    for phase in schedule.phases:
        phases.append({"first_step": first, **resolved(phase, m)})
        first += phase.steps or 0
    return {
        "kind": schedule.kind,
        "predicted_steps": schedule.steps,
        "effect": schedule.effect,
        "risk": schedule.risk,
        "source": schedule.source,
        "phases": phases,
    }


def resolved(phase: Phase, m: Measurements) -> _Table:
    """Every setting of the phase, with the run's own where the phase leaves it."""
    return {
        "steps": phase.steps,
        "rho": phase.rho,
        "rho_end": phase.rho if phase.rho_end is None else phase.rho_end,
        **{name: getattr(m, name) for name in ("lr", "momentum", "batch_size", "micro_batch")},
        **phase.changes,
    }


def _cleaned(value: Any) -> Any:
    """Without keys that have no value (TOML has no null), and with every text printable."""
    if isinstance(value, dict):
        return {printable(name): _cleaned(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_cleaned(item) for item in value if item is not None]
    return printable(value) if isinstance(value, str) else value


def _toml(table: Mapping[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(table)


def _json(table: Mapping[str, Any]) -> str:
    return json.dumps(table, indent=2, allow_nan=False) + "\n"


def _yaml(table: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(table), sort_keys=False, allow_unicode=True, width=120)


def _read_yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {".toml": _toml, ".json": _json, ".yaml": _yaml, ".yml": _yaml}
READERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
}


def check_suffix(suffix: str) -> None:
    """Nothing, or UsageError for a suffix that names no format."""
    if suffix not in WRITERS:
        raise UsageError(
            f"--emit cannot tell a format from the suffix {printable(suffix)!r}",
            f"name the file with one of {', '.join(WRITERS)}",
        )


def render(diagnosis: Diagnosis, suffix: str) -> str:
    """The file's text in the format of `suffix`: .toml, .json, .yaml or .yml.

    Raises:
        UsageError: another suffix.
    """
    check_suffix(suffix)
    return WRITERS[suffix](recipe(diagnosis))


def is_recipe(text: str, suffix: str) -> bool:
    """Whether `text` is a file that `render` wrote."""
    import yaml

    try:
        found = READERS[suffix](text)
    except (ValueError, RecursionError, yaml.YAMLError):
        return False
    return isinstance(found, dict) and found.get("format") == MARK
