"""Text from outside in Markdown: shown as it is written, and never a link, a mention, HTML or a table's border.

Backslashes and entities do not stop a site that looks for `@name`, `#12` or an address in the finished page; code
spans do. So every word that is not plainly a word goes into one.
"""

from __future__ import annotations

import re

from samdiag.reports.escape import printable

# letters and digits of any script, joined by single hyphens, or a decimal number; with the punctuation of prose
_WORD = re.compile(r"[(“]?(?:[^\W_]+(?:[-’'][^\W_]+)*|[−±]?\d+\.\d+)[.,;:)”%]*|[−±·–…]")
_LINKED = re.compile(r"gh-\d|[0-9a-f]{7}", re.IGNORECASE)  # GitHub links issues and commits without any punctuation
_RUNS = re.compile(r"`+")


def code(text: str) -> str:
    """`text` as a code span, in a paragraph; empty for no text."""
    shown = printable(text)
    if not shown.strip():
        return "` `" if shown else ""
    fence = "`" * (1 + max((len(run) for run in _RUNS.findall(shown)), default=0))
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def prose(text: str) -> str:
    """`text` as a sentence: plain words as they are, and what lies between them as code spans."""
    parts: list[tuple[bool, str]] = []
    for word in printable(text).split():
        plain = _is_plain(word)
        if parts and parts[-1][0] == plain:
            parts[-1] = (plain, f"{parts[-1][1]} {word}")
        else:
            parts.append((plain, word))
    return " ".join(words if plain else code(words) for plain, words in parts)


def cell(markdown: str) -> str:
    """Markdown without line breaks, as it is written in a cell of a table: a bar there is a border, even in code."""
    return markdown.replace("|", r"\|")


def _is_plain(word: str) -> bool:
    return _WORD.fullmatch(word) is not None and not _LINKED.search(word)
