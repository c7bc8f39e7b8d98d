"""The inert reader agrees with Python's on plain values, and refuses everything that could do something."""

from __future__ import annotations

import datetime
import pickle
import pickletools
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.formats import inert_pickle
from samdiag.formats.inert_pickle import Name, Object, Refused, read_pickle

INTEGERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
LEAVES = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | st.text(max_size=300)
KEYS = st.text(max_size=9) | st.integers(min_value=-(2**31), max_value=2**31)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=30,
)


@given(PLAIN, st.integers(min_value=2, max_value=5))
def test_plain_values_come_back_as_they_were(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol), ()) == value


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    _read_or_refuse(data)


@given(PLAIN, st.data())
def test_a_changed_pickle_gives_a_value_or_a_value_error(value: Any, data: st.DataObject) -> None:
    stream = bytearray(pickle.dumps(value))
    for _ in range(3):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    _read_or_refuse(bytes(stream))


def _read_or_refuse(data: bytes) -> None:
    try:
        read_pickle(data, {("pathlib", "PosixPath")})
    except (ValueError, IndexError, KeyError, struct.error):
        return


def test_objects_become_records() -> None:
    found = read_pickle(
        pickle.dumps(PurePosixPath("a/b")), {("pathlib", "PurePosixPath"), ("pathlib._local", "PurePosixPath")}
    )
    assert type(found) is Object
    assert found.kind.name == "PurePosixPath"
    assert "/".join(found.arguments) == "a/b"


def test_shared_and_recursive_values_are_kept_as_such() -> None:
    one: list[Any] = []
    one.append(one)
    found = read_pickle(pickle.dumps(one), ())
    assert found[0] is found


class Runs:
    """Pickles as a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch inert-pickle-was-run",)


DOTTED = b"\x80\x04\x8c\x05torch\x8c\x0cSize.__new__\x93."
CALLS_TEXT = b"\x80\x04\x8c\x01a)R."
STATE_OF_LIST = b"\x80\x04]}b."
STATE_TWICE = b"\x80\x04\x8c\x05torch\x8c\x04Size\x93)R}b}b."
FILLS_OBJECT = b"\x80\x04\x8c\x05torch\x8c\x04Size\x93)R\x8c\x01aK\x01s."
HUGE_MEMO = b"\x80\x02Nr\xff\xff\xff\xff."


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (pickle.dumps(Runs(), 2), "system"),
        (pickle.dumps(Runs(), 4), "system"),
        (pickle.dumps(Runs(), 0), "system"),
        (pickle.dumps(datetime.date(2000, 1, 1)), "datetime.date"),
        (DOTTED, "torch.Size.__new__"),
        (b"\x80\x02ctorch\nSize.mro\n.", "torch.Size.mro"),
        (b"\x80\x02c__builtin__\neval\n.", "__builtin__.eval"),
        (b"\x80\x04K\x01K\x02\x93.", "by what is no text"),
        (CALLS_TEXT, "not a class"),
        (STATE_OF_LIST, "as if it were"),
        (STATE_TWICE, "state twice"),
        (FILLS_OBJECT, "as if it were"),
        (b"\x80\x04(K\x01i__main__\nRuns\n.", "operation"),  # INST
        (b"\x80\x04(o.", "operation"),  # OBJ
        (b"\x80\x04P1\n.", "operation"),  # PERSID
        (b"\x80\x04K\x01Q.", "operation"),  # BINPERSID
        (b"\x80\x04\x82\x01.", "operation"),  # EXT1
        (b"\x80\x04\x83\x01\x00.", "operation"),  # EXT2
        (b"\x80\x04\x84\x01\x00\x00\x00.", "operation"),  # EXT4
        (b"\x80\x05\x97.", "operation"),  # NEXT_BUFFER
        (b"\x80\x04))}\x92.", "operation"),  # NEWOBJ_EX
        (b"\x80\x04K\x012.", "operation"),  # DUP
        (b"\x80\x04(K\x01\x91.", "operation"),  # FROZENSET
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x04\x8a\x09" + bytes(9) + b".", "integer of 9 bytes"),
        (b"\x80\x04}))s.", "a tuple as the key"),
        (b"\x80\x04}\x8a\x08" + b"\xff" * 7 + b"\x0fNs.", "a int as the key"),
    ],
)
def test_what_could_do_something_is_refused(
    data: bytes, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=what.replace(".", r"\.")):
        read_pickle(data, {("torch", "Size")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x80", b"\x80\x04", b".", b"\x80\x04NN.", b"\x80\x04(N.", b"\x80\x04t.", b"\x80\x04h\x05."),
        *(b"\x80\x04a.", b"\x80\x04X\xff\xff\xff\xffa.", b"\x80\x04\x8c\x01\xff.", b"\x80\x04}(K\x01u.", b"ctorch"),
    ],
)
def test_damage_is_a_value_error(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError, KeyError, struct.error)):
        read_pickle(data, ())


def test_a_memo_index_allocates_nothing() -> None:
    assert read_pickle(HUGE_MEMO, ()) is None


def test_operations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MAX_OPERATIONS", 10)
    with pytest.raises(Refused, match="more than 10 operations"):
        read_pickle(pickle.dumps([None] * 20), ())


def test_deep_nesting_needs_no_recursion() -> None:
    found = read_pickle(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".", ())
    assert type(found) is list


def test_every_operation_is_one_of_pickletools() -> None:
    known = {operation.code.encode("latin-1") for operation in pickletools.opcodes}
    assert inert_pickle.OPERATIONS.keys() < known


def test_names_are_texts_and_nothing_more() -> None:
    found = read_pickle(b"\x80\x02cos\nsystem\n.", {("os", "system")})
    assert found == Name("os", "system")
    assert not callable(found)
