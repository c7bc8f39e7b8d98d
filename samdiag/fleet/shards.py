"""One share of a list for each of several jobs: every n-th entry, so that every share spans the whole run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from samdiag.errors import UsageError

Item = TypeVar("Item")
SHARD_TODO = "give the share and the number of shares, counted from 1: --shard 2/8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Share `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """`"2/8"` as the second of eight shares.

    Raises:
        UsageError: it is not of that form, or there is no such share.
    """
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text, re.ASCII)
    if found is None:
        raise UsageError(f"--shard {text!r} is not of the form i/n", SHARD_TODO)
    index, count = int(found[1]), int(found[2])
    if count < 1 or not 1 <= index <= count:
        raise UsageError(f"--shard {text}: there is no share {index} of {count}", SHARD_TODO)
    return Shard(index=index, count=count)


def take(entries: Iterable[Item], shard: Shard | None) -> Iterator[Item]:
    """Every `count`-th of the ordered entries, starting at the `index`-th; all of them where there is no shard.

    The shares of one list are disjoint, together they are the list, and their sizes differ by at most one.
    """
    return iter(entries) if shard is None else islice(entries, shard.index - 1, None, shard.count)
