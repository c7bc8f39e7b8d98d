"""The JSON Schema of the JSON report, generated from the dataclasses of `samdiag.types`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from samdiag import instruments, probes, remedies, spectral, types
from samdiag import sweep as sweeps
from samdiag.spectral import SpectralReport
from samdiag.sweep import Sweep
from samdiag.types import FORMAT_VERSION, VERDICTS_BY_HARM, Diagnosis

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NUMBER = "Number"  # the shared definition that stands for every float
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)  # an entry under "Attributes:", dedented
_COMMENT = re.compile(r"^ +(\w+): [^#\n]+# (.+)$", re.MULTILINE)  # a field with a remark on its line

_Schema = dict[str, Any]


def report_schema(kind: type[Diagnosis] | type[Sweep] | type[SpectralReport] = Diagnosis) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one report object, as `json_lines.render` writes it, of a scan over rho, or
    of a whole spectrum.

    Every number may also be one of the strings "Infinity", "-Infinity" and "NaN". Objects that mirror a dataclass are
    closed and complete (every field is always written); `settings`, `timings`, `environment` and `evidence` are maps.
    """
    from pydantic import TypeAdapter

    schema = TypeAdapter(kind).json_schema(mode="serialization")
    definitions = {name: _described(name, _closed(part)) for name, part in schema.pop("$defs").items()}
    body = _described(kind.__name__, _closed(schema))
    body["properties"]["format_version"] = _format_version()
    if kind is Diagnosis:
        harm = {"description": "The most harmful finding.", "examples": list(VERDICTS_BY_HARM)}
        body["properties"]["verdict"] |= harm
    name = {Diagnosis: "samdiag report", Sweep: "samdiag sweep"}.get(kind, "samdiag spectrum")
    title = {"$schema": DIALECT, "title": name, "description": _summary(kind)}
    return title | {key: body[key] for key in body if key not in title} | {"$defs": definitions | {NUMBER: _number()}}


def _number() -> _Schema:
    return {
        "description": "A number; JSON has no spelling for the three strings' values.",
        "anyOf": [{"type": "number"}, {"enum": ["Infinity", "-Infinity", "NaN"]}],
    }


def _format_version() -> _Schema:
    return {"const": FORMAT_VERSION, "description": "The version of this format; another version has another schema."}


def _closed(schema: Any) -> Any:
    """`schema` with every float a `Number`, every object with named properties closed, and no generated titles."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "number":
        return {"$ref": f"#/$defs/{NUMBER}"}
    result = {key: _closed(value) for key, value in schema.items() if key not in ("title", "default", "properties")}
    if "properties" in schema:  # apart, since a property may be called "title"
        result["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
        result["required"] = list(schema["properties"])
        result["additionalProperties"] = False
    return result


def _described(name: str, schema: _Schema) -> _Schema:
    """`schema` with the descriptions that the source of the dataclass called `name` has for its fields."""
    modules = (types, instruments, sweeps, spectral, remedies, probes)
    kind = next((found for module in modules if (found := getattr(module, name, None))), None)
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        return schema
    schema.pop("description", None)  # pydantic's has the whole docstring
    if summary := _summary(kind):
        schema["description"] = summary
    remarks = {field: " ".join(text.split()) for field, text in _COMMENT.findall(_source(kind))}
    remarks |= {field: " ".join(text.split()) for field, text in _ATTRIBUTE.findall(inspect.getdoc(kind) or "")}
    for field, remark in remarks.items():
        if field in schema["properties"]:
            schema["properties"][field]["description"] = remark
    return schema


def _summary(kind: type) -> str:
    """First paragraph of the docstring; empty for the signature that an undocumented dataclass has instead."""
    text = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    return "" if text.startswith(f"{kind.__name__}(") else " ".join(text.split())


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except OSError:  # installed without sources: the schema is the same but for some descriptions
        return ""
