"""A diagnosis as one JSON object: the machine-readable report, of which `samdiag scan` writes one per line."""

from __future__ import annotations

import json

from samdiag.types import Diagnosis

_FIRST = ("format_version", "samdiag_version", "checkpoint", "verdict")  # what a reader of raw lines looks for


def render(diagnosis: Diagnosis, *, indent: int | None = None) -> str:
    """One valid JSON object, without a final newline; on one line unless `indent` is given.

    Pure ASCII, so that neither a terminal control character nor a lone surrogate of a path reaches the output;
    infinities and NaN are the strings "Infinity", "-Infinity" and "NaN".
    `samdiag.reports.schema.report_schema` describes it.
    """
    encoded = diagnosis.to_dict()
    ordered = {name: encoded.pop(name) for name in _FIRST} | encoded
    return json.dumps(ordered, indent=indent, allow_nan=False, ensure_ascii=True)
