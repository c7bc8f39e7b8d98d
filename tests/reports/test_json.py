from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.encoding import jsonable
from samdiag.reports import json_lines
from samdiag.reports.schema import DIALECT, report_schema

from .samples import diagnosis, est, every_kind, measurements, unbounded
from .snapshot import matches

KINDS = every_kind()
SCHEMA = report_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def strict(text: str) -> Any:
    """`json.loads` that refuses the constants which are not JSON."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_snapshot() -> None:
    assert matches("report.json", json_lines.render(diagnosis(), indent=2))


@pytest.mark.parametrize("kind", KINDS)
def test_one_valid_ascii_line(kind: str) -> None:
    line = json_lines.render(KINDS[kind])
    assert line.isascii()
    assert line.isprintable()
    assert strict(line) == KINDS[kind].to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_schema_accepts(kind: str) -> None:
    VALIDATOR.validate(strict(json_lines.render(KINDS[kind])))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == DIALECT
    assert "$id" not in SCHEMA
    assert SCHEMA["description"]


def test_fields_that_have_a_description_in_the_source_have_it_in_the_schema() -> None:
    fields = SCHEMA["$defs"]["Estimate"]["properties"]
    assert "numerical error bound" in fields["error"]["description"]
    assert SCHEMA["$defs"]["Measurements"]["properties"]["batch_size"]["description"]


def test_infinity_is_a_string() -> None:
    report = strict(json_lines.render(unbounded()))
    assert report["measurements"]["effective_radius"] == "Infinity"
    assert report["measurements"]["loss"]["value"] == "NaN"
    assert report["prescription"]["rho"]["interval"] == ["-Infinity", "Infinity"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("extra",), 1),
        (("checkpoint", "extra"), 1),
        (("measurements", "rho"), "a lot"),
        (("measurements", "loss", "value"), "inf"),
        (("findings",), [{}]),
        (("findings", 0, "severity"), "dreadful"),
        (("prescription", "rho", "interval"), [1]),
        (("settings", "sam.rho", "trust"), "total"),
        (("format_version",), 2),
    ],
)
def test_schema_refuses(path: tuple[str | int, ...], value: object) -> None:
    report = strict(json_lines.render(diagnosis()))
    part = report
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert not VALIDATOR.is_valid(report)


def test_schema_requires_every_field() -> None:
    for name in KINDS["bare"].to_dict():
        assert not VALIDATOR.is_valid({key: value for key, value in KINDS["bare"].to_dict().items() if key != name})


@given(
    st.recursive(st.floats() | st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_jsonable_values_survive_strict_json(value: object) -> None:
    assert strict(json.dumps(jsonable(value), allow_nan=False)) == jsonable(value)


@given(st.floats(), st.floats(), st.none() | st.floats())
def test_reports_with_any_float_validate(value: float, error: float, sampling_error: float | None) -> None:
    m = measurements(loss=est(value, error, sampling_error), effective_radius=value, quadratic_error=sampling_error)
    VALIDATOR.validate(strict(json_lines.render(diagnosis(measurements=m))))


def test_reports_import_neither_torch_nor_rich() -> None:
    """Only drawing needs Rich and only the schema needs pydantic, both when called; torch never."""
    code = (
        "import sys, samdiag.gates\n"
        "from samdiag.reports import digest, explain, json_lines, schema, text\n"
        "print(sorted({'torch', 'rich', 'pydantic', 'jsonschema'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
