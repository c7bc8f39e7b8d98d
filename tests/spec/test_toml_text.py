"""Whatever is written is read back the same, and nothing ends its quotes or its comment."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.spec.toml_text import assignment, comment, literal

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(TEXTS, PLAIN)
def test_what_is_written_is_read_back(name: str, value: Any) -> None:
    line = assignment(name, value)
    assert tomllib.loads(line) == {name: value}
    assert line.isprintable()


@given(st.text())
def test_a_comment_is_one_line_that_says_nothing(text: str) -> None:
    line = comment(text)
    assert line.startswith("#")
    assert line.isprintable()
    assert tomllib.loads(f"{line}\nx = 1\n") == {"x": 1}


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities(value: float) -> None:
    assert tomllib.loads(f"x = {literal(value)}")["x"] == value


def test_not_a_number() -> None:
    assert math.isnan(tomllib.loads(f"x = {literal(math.nan)}")["x"])


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert tomllib.loads(f"x = {literal(chr(0xD800))}") == {"x": "\ufffd"}


def test_none_is_left_out() -> None:
    assert tomllib.loads(f"x = {literal({'a': None, 'b': [1, None]})}") == {"x": {"b": [1]}}


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        literal(object())
