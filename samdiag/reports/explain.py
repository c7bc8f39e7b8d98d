"""`--explain`: every setting with who said it, how far that is trusted, and what it overruled."""

from __future__ import annotations

from collections.abc import Mapping

from samdiag.reports.canvas import draw, text
from samdiag.reports.provenance import setting_row
from samdiag.types import Setting, Trust

_STYLES = {Trust.CLI: "bold green", Trust.PROJECT: "green", Trust.ARTIFACT: "yellow", Trust.DEFAULT: "dim"}


def render(settings: Mapping[str, Setting], *, width: int = 100, color: bool = True) -> str:
    """A table of name, value, source, trust and what was overruled; without a final newline."""
    from rich.table import Table

    if not settings:
        return "No setting was given and none has a default."
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for title in ("setting", "value", "from", "trust", "overruled"):
        table.add_column(title, overflow="fold", no_wrap=title == "trust")
    for row in (setting_row(name, setting) for name, setting in settings.items()):
        assert row.trust is not None  # a resolved setting always says it
        table.add_row(
            text(row.name, "bold"),
            text(row.value),
            text(row.source),
            text(row.trust.value, _STYLES[row.trust]),
            text("; ".join(f"{value} ({source})" for value, source in row.overruled) or "–", "dim"),
        )
    return draw(table, width=width, color=color)
