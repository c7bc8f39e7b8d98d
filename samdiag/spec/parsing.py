"""Plain data checked against the schema, with errors that name key, value, origin and what is allowed."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.schema import FAIL_ON, Spec
from samdiag.suggesting import did_you_mean

__all__ = ["SINGLE", "TABLES", "WHOLE", "did_you_mean", "flatten", "nest", "parse", "parse_toml"]

WHOLE = ("problem", "model", "data", "loss")  # each is one value, never merged key by key
SINGLE = ("weights", "download")  # settings of no table
TABLES = ("sam", "measure", "gate")
MAX_KEY_PARTS = 64  # of a dotted key; the schema has three, and those of `args`
LONG_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){%d}""" % MAX_KEY_PARTS  # noqa: UP031
)


def parse(document: Mapping[str, Any], source: str) -> Spec:
    """`document` as a Spec.

    Args:
        document: nested plain data, as TOML or JSON gives it.
        source: who said it, for messages.

    Raises:
        UsageError: an unknown key or a value that is not allowed.
    """
    try:
        return Spec.model_validate(dict(document))
    except ValidationError as error:
        found = error.errors(include_url=False)
    except RecursionError:
        raise UsageError(f"{source} is nested too deeply", f"simplify {source}") from None
    lines = [_what(item, source) for item in found[:3]]
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    raise UsageError("; ".join(lines) + more, _todo(found[0], source))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The table that TOML `text` is, or UsageError with the line that is wrong."""
    if LONG_KEY.search(text):  # tomllib takes memory with the square of its length: gigabytes for 30 000 parts
        raise UsageError(f"{source} has a key of more than {MAX_KEY_PARTS} parts", f"correct {source}")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of the former, also an integer of thousands of digits
        raise UsageError(f"{source} is not valid TOML: {shown(error)}", f"correct {source}") from None


def flatten(spec: Spec) -> dict[str, Any]:
    """What `spec` says by dotted name, as JSON-able values; what was not said is absent."""
    dumped = spec.model_dump(mode="json", exclude_none=True)
    said = {name: dumped[name] for name in (*WHOLE, "weights", "download") if name in dumped}
    return said | {f"{table}.{key}": value for table in TABLES for key, value in dumped[table].items()}


def nest(dotted: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`{"sam.rho": 0.1}` as `{"sam": {"rho": 0.1}}`; None is dropped, because it was not said."""
    document: dict[str, Any] = {}
    for name, value in dotted.items():
        if value is None:
            continue
        *tables, key = name.split(".")
        place = document
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise UsageError(f"{source} says both {shown(table)} and {shown(name)}", "say one of them")
        if key in place:
            raise UsageError(f"{source} says {shown(name)} twice", "say it once")
        place[key] = list(value) if isinstance(value, tuple) else value
    return document


def _what(item: ErrorDetails, source: str) -> str:
    """One line: key, value, origin and what is wrong."""
    key = shown(".".join(str(part) for part in item["loc"])) or "the spec"
    if item["type"] == "extra_forbidden":
        return f"{key} ({source}) is unknown{did_you_mean(str(item['loc'][-1]), _keys_beside(item))}"
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    near = _near_verdict(item["input"]) if key == "gate.fail_on" else _near_choice(item)
    value = "" if isinstance(item["input"], Mapping) else f" = {quoted(item['input'])}"
    return f"{key}{value} ({source}): {message[:1].lower()}{shown(message[1:])}{near}"


def _near_verdict(value: Any) -> str:
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    unknown = [word for word in words if isinstance(word, str) and word not in FAIL_ON]
    return did_you_mean(unknown[0], FAIL_ON) if unknown else ""


def _near_choice(item: ErrorDetails) -> str:
    """The nearest of a closed list of words."""
    if item["type"] != "literal_error" or not isinstance(item["input"], str):
        return ""
    return did_you_mean(item["input"], re.findall(r"'([^']+)'", item.get("ctx", {}).get("expected", "")))


def _todo(item: ErrorDetails, source: str) -> str:
    if item["type"] == "extra_forbidden":
        return f"known here: {', '.join(_keys_beside(item))}"
    return f"correct it on the {source}" if source == "command line" else f"correct it in {source}"


def _keys_beside(item: ErrorDetails) -> list[str]:
    """The keys that are known in the table of an unknown one."""
    table: type[BaseModel] = Spec
    for part in item["loc"][:-1]:
        field = table.model_fields.get(str(part))
        inner = next(_tables(field.annotation), None) if field is not None else None
        if inner is None:
            return []
        table = inner
    return list(table.model_fields)


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The table classes inside an annotation such as `Annotated[ModelSpec, …] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _tables(inner)
