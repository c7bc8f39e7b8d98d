"""Shares of a list: disjoint, complete, even, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.errors import UsageError
from samdiag.fleet.shards import Shard, parse_shard, take


@given(length=st.integers(0, 60), count=st.integers(1, 12))
def test_shares_are_the_list_once(length: int, count: int) -> None:
    shares = [list(take(range(length), Shard(index=index, count=count))) for index in range(1, count + 1)]
    assert sorted(item for share in shares for item in share) == list(range(length))
    assert all(share == sorted(share) for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_every_nth_from_the_ith() -> None:
    assert list(take("abcdefgh", parse_shard("2/3"))) == ["b", "e", "h"]
    assert list(take("abc", None)) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["1/1", " 2 / 8 ", "8/8", "02/8"])
def test_read(text: str) -> None:
    shard = parse_shard(text)
    assert str(shard) == "/".join(str(int(part)) for part in text.split("/"))


@pytest.mark.parametrize(
    "text", ["", "2", "0/8", "9/8", "1/0", "-1/8", "1/8/2", "a/b", "1.5/2", "٢/٨", "1/" + "9" * 99]
)
def test_refused_in_two_lines(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shard(text)
    assert "--shard" in caught.value.what
    assert "--shard 2/8" in caught.value.todo
