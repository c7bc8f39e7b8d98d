"""What scripts saved beside the weights becomes plain data, however it is nested."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from samdiag.formats.inert import Record
from samdiag.formats.plain_data import MAX_VALUES, as_table

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=30,
)


def record(**fields: Any) -> Record:
    made = Record()
    made.__setstate__(fields)
    return made


@given(st.dictionaries(st.text(), NESTED))
def test_whatever_it_is_it_becomes_json(saved: dict[str, Any]) -> None:
    json.dumps(as_table(saved), allow_nan=False)


def test_plain_values_stay() -> None:
    plain = {"a": 1, "b": [True, None, "x", 2.5], "c": {"d": [[]]}}
    assert as_table(plain) == plain
    assert as_table(record(**plain)) == plain


def test_omegaconf() -> None:
    leaf = record(_metadata=record(key="x"), _val=0.25)
    tables = record(_metadata=record(), _content={"lr": leaf, "list": record(_content=[leaf, leaf])})
    assert as_table(tables) == {"lr": 0.25, "list": [0.25, 0.25]}


def test_what_is_no_table_is_none() -> None:
    assert as_table([1, 2]) == as_table("text") == as_table(None) == {}


def test_what_contains_itself_ends() -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = loop
    assert as_table(loop)["a"] == 1


def test_shared_parts_do_not_multiply() -> None:
    level: list[Any] = [1]
    for _ in range(15):
        level = [level] * 100
    count = json.dumps(as_table({"bomb": level})).count("1")
    assert count <= MAX_VALUES


def test_attributes_of_a_stand_in_are_never_those_of_the_file() -> None:
    made = record(__class__="x", dump_patches=True, fields={"a": 1})
    assert type(made) is Record
    assert made.fields == {"__class__": "x", "dump_patches": True, "fields": {"a": 1}}
    assert not hasattr(made, "dump_patches")
