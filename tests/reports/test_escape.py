from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.reports.escape import MAX_LENGTH, printable

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ANY_TEXT = st.text(st.characters(codec=None, categories=None))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("runs/épreuve 1 – 実験.pt", "runs/épreuve 1 – 実験.pt"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;evil\x07", r"\x1b]0;evil\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
        ("\u2028", r"\u2028"),
        (3.5, "3.5"),
    ],
)
def test_invisible_characters_are_spelled_out(raw: object, shown: str) -> None:
    assert printable(raw) == shown


@given(ANY_TEXT)
def test_printable_text_is_one_encodable_line_without_hidden_characters(raw: str) -> None:
    shown = printable(raw)
    shown.encode("utf-8")
    assert not {unicodedata.category(character) for character in shown} & HIDDEN
    assert len(shown.splitlines()) <= 1


@given(ANY_TEXT)
def test_printable_is_idempotent(raw: str) -> None:
    assert printable(printable(raw, limit=10**6), limit=10**6) == printable(raw, limit=10**6)


def test_length_is_bounded() -> None:
    assert len(printable("x" * 10**6)) == MAX_LENGTH
