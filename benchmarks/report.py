"""Tables in the terminal and in markdown, and JSON files that are brought up to date section by section."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPORTS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
WIDTH = 200  # columns of a table where there is no terminal

Row = list[str]


def show(title: str, header: Row, rows: list[Row]) -> None:
    """Prints one table."""
    drawn = Table(*header, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(drawn)


def say(text: str) -> None:
    """Progress, on stderr."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def markdown_table(header: Row, rows: list[Row]) -> str:
    """The same table for a document."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def update_json(path: Path, name: str, section: dict[str, Any]) -> dict[str, Any]:
    """The sections of the JSON file at `path`, with `section` put under `name`."""
    sections: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    sections[name] = section
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = json.dumps(sections, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(encoded + "\n", encoding="utf-8")
    return sections


def number(value: float | None, digits: int = 3) -> str:
    """`value` to so many digits; a dash for None."""
    return "–" if value is None else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """A share as a percentage to two digits, never in powers of ten."""
    if value is None:
        return "–"
    return f"{100 * value:.2g} %" if 1e-6 < value < 1 else f"{100 * value:.0f} %"


def first_line(error: Exception) -> str:
    """What an exception says, in one short line."""
    return (str(error).splitlines() or [""])[0][:150]
