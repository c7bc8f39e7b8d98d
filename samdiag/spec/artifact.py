"""What a checkpoint may say about itself: a model and data of the closed catalog, and the settings of its own run.

A stamp or a sidecar comes with the file and may be anybody's. It never names code, never touches how it is judged, and
never fills in for a spec that the user began.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import listed, shown
from samdiag.spec.parsing import WHOLE, parse
from samdiag.spec.schema import Spec

JUDGE_TABLES = ("measure", "gate")
JUDGE_KEYS = ("weights",)
JUDGE_DATA_KEYS = ("num_samples", "batch_size")
PATH_DATA_KINDS = ("folder", "tensors")  # these name files on the machine of whoever inspects


def read_artifact(
    read: Callable[[], Mapping[str, Any]], source: str, *, user_spec: bool
) -> tuple[Spec, tuple[str, ...]]:
    """The part of an artifact's spec that it is allowed to say, and a warning for each part that is ignored.

    Args:
        read: returns the stamp or the sidecar as plain data.
        source: what to call it in messages.
        user_spec: whether the user named the problem, so that nothing the artifact names is used.

    Raises:
        UsageError: it names code or a path and nothing else says what to use; or it does not fit the schema.
    """
    warnings: list[str] = []
    try:
        remaining = copy.deepcopy(dict(read()))
    except UsageError as error:
        if not user_spec:
            raise
        return Spec(), (f"{source} is ignored: {error.what}",)
    forbidden = forbidden_names(remaining)
    if forbidden and not user_spec:
        raise _refused(remaining, forbidden, source)
    if forbidden:
        warnings.append(f"{source} names code or paths ({listed(forbidden)}): ignored, your own spec is used")
        for name in forbidden:
            remaining.pop(name, None)
    ignored = _remove_judge(remaining)
    if ignored:
        warnings.append(f"{source} sets {listed(ignored, 10)}: ignored, a checkpoint has no say in how it is judged")
    try:
        return parse(remaining, source), tuple(warnings)
    except UsageError as error:
        if not user_spec:
            raise
        return Spec(), (*warnings, f"{source} is ignored: {error.what}")


def forbidden_names(document: Mapping[str, Any]) -> list[str]:
    """The top-level keys through which an artifact would name an import or a path."""
    found = [name for name in ("problem", "pythonpath") if name in document]
    return found + [name for name in ("model", "data", "loss") if _names_code(document.get(name))]


def _names_code(value: Any) -> bool:
    if isinstance(value, str):
        return ":" in value
    return isinstance(value, Mapping) and any(key in value for key in ("python", *PATH_DATA_KINDS))


def _remove_judge(document: dict[str, Any]) -> list[str]:
    """Takes out of `document` what only the user may set; the dotted names of what was taken out."""
    removed: list[str] = []
    for table in JUDGE_TABLES:
        if table in document:
            inner = document.pop(table)
            removed += [f"{table}.{key}" for key in inner] if isinstance(inner, dict) and inner else [table]
    removed += [name for name in JUDGE_KEYS if document.pop(name, None) is not None]
    data = document.get("data")
    if isinstance(data, dict):
        removed += [f"data.{key}" for key in JUDGE_DATA_KEYS if data.pop(key, None) is not None]
    return removed


def _refused(document: Mapping[str, Any], forbidden: list[str], source: str) -> UsageError:
    """The refusal, with the lines that would make the import the user's own."""
    what = f"{source} names code or paths ({listed(forbidden)}): a checkpoint may not choose what is imported or read"
    lines = [_toml_line(name, document[name]) for name in (*WHOLE, "pythonpath") if name in document]
    own = "\n".join(f"    {line}" for line in lines)
    return UsageError(what, f"if you know and trust that code, put these lines in your own samdiag.toml:\n{own}")


def _toml_line(name: str, value: Any) -> str:
    """`name = value` in TOML, with every character that could deceive a terminal escaped."""
    return f"{name} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml_key(key)} = {_toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return shown(json.dumps(value, default=str))  # ensure_ascii: control characters leave as \\uXXXX


def _toml_key(key: Any) -> str:
    text = str(key)
    return text if text.isidentifier() and text.isascii() else shown(json.dumps(text))
