"""The known word that a mistyped one was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or nothing where no known word is near; upper and lower case count as the same."""
    found = nearest(word, known)
    return "" if found is None else f"; did you mean {found!r}?"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The nearest known word; None where none is near."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), names, n=1)
    return names[near[0]] if near else None
