"""What a checkpoint may say about itself: a model and data of the closed catalog, and the settings of its own run.

A stamp or a sidecar comes with the file and may be anybody's. It never names code, never touches how it is judged, and
never fills in for a spec that the user began.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import listed, shown
from samdiag.spec.parsing import WHOLE, nest, parse
from samdiag.spec.schema import Spec
from samdiag.spec.toml_text import assignment, comment

JUDGE_TABLES = ("measure", "gate", "download")  # the network is asked for by a flag and by nothing else
JUDGE_KEYS = ("weights",)
JUDGE_DATA_KEYS = ("num_samples", "batch_size")
PATH_KEYS: Mapping[str, tuple[str, ...]] = {  # these name files on the machine of whoever inspects
    "model": ("config", "base"),
    "data": ("folder", "tensors", "webdataset", "root", "data_files"),
    "loss": (),
}
PATH_LIKE = re.compile(r"[~.]|.*[/\\]", re.DOTALL)  # a home, a hidden or parent folder, a separator or an address
DATASET_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # of the hub: "mnist", "owner/name"
OWN_TOKENIZER = "checkpoint"


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


def read_configuration(document: Mapping[str, Any], source: str) -> tuple[Spec, tuple[str, ...]]:
    """What a checkpoint's own configuration says and may say, and a warning for each part that is not heard.

    It was written for another program, so that nothing in it is an error: what names code or paths, has a say in the
    judging, or does not fit is left out.
    """
    remaining = copy.deepcopy(dict(document))
    forbidden = forbidden_names(remaining)
    for name in forbidden:
        remaining.pop(name, None)
    ignored = [*forbidden, *_remove_judge(remaining)]
    warnings = [f"{source} says {listed(ignored, 10)}: ignored, a checkpoint may not choose it"] if ignored else []
    said: dict[str, Any] = {}
    for name, value in _single(remaining):
        try:
            parse(nest({name: value}, source), source)
        except UsageError as error:
            warnings.append(f"{error.what}: ignored")
        else:
            said[name] = value
    return parse(nest(said, source), source), tuple(warnings)


def _single(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each setting by dotted name: those of `sam` one by one, since one bad value must not take the others along."""
    for name, value in document.items():
        if name == "sam" and isinstance(value, Mapping):
            yield from ((f"sam.{key}", item) for key, item in value.items() if "." not in str(key))
        elif "." not in str(name):
            yield str(name), value


def forbidden_names(document: Mapping[str, Any]) -> list[str]:
    """The top-level keys through which an artifact would name an import or a path."""
    found = [name for name in ("problem", "pythonpath") if name in document]
    return found + [name for name in ("model", "data", "loss") if _names_code(name, document.get(name))]


def _names_code(table: str, value: Any) -> bool:
    """Whether a part of the problem names code, a file or a folder."""
    if isinstance(value, str):
        return ":" in value
    if not isinstance(value, Mapping):
        return False
    if any(key in value for key in ("python", *PATH_KEYS[table])):
        return True
    if "gallery" not in value and _has_path(value.get("args")):  # samdiag's own models read no file
        return True
    if table == "data" and value.get("tokenizer", OWN_TOKENIZER) != OWN_TOKENIZER:
        return True
    name = value.get("datasets")
    return isinstance(name, str) and DATASET_NAME.fullmatch(name) is None


def _has_path(args: Any) -> bool:
    """Whether any text among a factory's arguments may be a path or an address."""
    level = [args]
    while level:
        item = level.pop()
        if isinstance(item, str) and PATH_LIKE.match(item):
            return True
        if isinstance(item, Mapping):
            level += item.values()
        elif isinstance(item, list):
            level += item
    return False


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
    lines = [_own_line(name, document[name]) for name in (*WHOLE, "pythonpath") if name in document]
    own = "\n".join(f"    {line}" for line in lines)
    return UsageError(what, f"if you know and trust that code, put these lines in your own samdiag.toml:\n{own}")


def _own_line(name: str, value: Any) -> str:
    """`name = value` in TOML, with every character that could deceive a terminal escaped."""
    try:
        return shown(assignment(name, value))
    except TypeError:  # a date, as TOML has them
        return shown(comment(f"{name} is not plain data"))
