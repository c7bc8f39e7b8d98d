"""A trend for a terminal: a table of each run's checkpoints, then a sparkline per number. And the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from samdiag.reports.canvas import MIN_WIDTH, draw
from samdiag.reports.escape import printable
from samdiag.reports.markdown_escape import cell, code, prose
from samdiag.reports.numbers import MINUS, number, with_error
from samdiag.reports.sparkline import sparkline
from samdiag.reports.text import grid, indented, title
from samdiag.reports.words import words_for
from samdiag.trends import FAILED, Move, Reading, Row, RunTrend, Series, Trend

if TYPE_CHECKING:
    from rich.console import RenderableType

ARROWS = {Move.UP: "↑", Move.DOWN: "↓", Move.SAME: "", Move.UNKNOWN: "", Move.SWINGS: ""}
WORDS = {
    Move.UP: "rises",
    Move.DOWN: "falls",
    Move.SAME: "no change over all beyond the error bars",
    Move.SWINGS: "up and down, no change over all",
    Move.UNKNOWN: "no error bars, or measured only once",
}
LEGEND = "↑ ↓ beyond both error bars from the checkpoint before; ± is the 95 % error"
SEEDS = "; of several seeds the lowest … highest value"
PLAIN = str.maketrans(
    {
        "↑": "^",
        "↓": "v",
        "±": "+/-",
        MINUS: "-",
        "…": "...",
        "∞": "inf",
        "·": "|",
        "✖": "x",
        "→": "->",
        "•": "*",
        "–": "-",
    }
)
_GAP = 3  # columns between two of a table
_NEW, _OLD = "• ", "  "  # before a verdict: another one than before
SPARK_WIDTH = 40  # characters at most
_LABELS = 60  # columns that a sparkline's name, range and words want beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendLine:
    """One checkpoint as texts: where, the verdict (marked where it changed), and the numbers with their arrows."""

    where: str
    verdict: str
    new: bool
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkLine:
    """One number over a run as texts: name, picture, its range, and what it does."""

    name: str
    picture: str
    span: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendTable:
    """A run as texts that are harmless in every medium."""

    run: str
    heads: tuple[str, ...]
    lines: tuple[TrendLine, ...]
    sparks: tuple[SparkLine, ...]
    verdicts: tuple[str, ...]
    notes: tuple[str, ...]


def digest(trend: Trend, *, ascii: bool = False, width: int = 100) -> tuple[TrendTable, ...]:
    """Every run as the texts that each medium shows, its sparklines for a page of `width` columns."""
    room = max(8, min(SPARK_WIDTH, width - _LABELS))  # fewer than 8 characters show nothing
    return tuple(_table(run, ascii, room) for run in trend.runs)


def render(trend: Trend, *, width: int = 100, color: bool = True, ascii: bool = False) -> str:
    """The trend as text, at most `width` columns wide, without a final newline.

    Args:
        trend: of one run or several.
        width: in columns.
        color: escape sequences; nothing is said by colour alone.
        ascii: neither blocks nor arrows nor signs, for a terminal that lacks them.
    """
    from rich.text import Text

    width = max(width, MIN_WIDTH)
    sections = [section for table in digest(trend, ascii=ascii, width=width) for section in _sections(table, width)]
    sections.append([Text(_legend(trend), "dim")])
    text = "\n\n".join(draw(*section, width=width, color=color) for section in sections if section)
    return text.translate(PLAIN) if ascii else text


def render_markdown(trend: Trend) -> str:
    """The trend as Markdown: one table a run, then its numbers' ranges."""
    return "\n".join(line for table in digest(trend) for line in _markdown(table)) + f"\n{_legend(trend)}"


def _legend(trend: Trend) -> str:
    several = any(reading.num_seeds > 1 for run in trend.runs for row in run.rows for reading in row.readings.values())
    return LEGEND + (SEEDS if several else "")


def _table(run: RunTrend, ascii: bool, room: int) -> TrendTable:
    names = [series.name for series in run.series]
    return TrendTable(
        run=printable(run.run),
        heads=("step" if any(row.step is not None for row in run.rows) else "checkpoint", "verdict", *names),
        lines=tuple(_line(row, names) for row in run.rows),
        sparks=tuple(_spark(series, run.rows, ascii, room) for series in run.series),
        verdicts=_verdicts(run.rows),
        notes=(*(_failure(row) for row in run.rows if row.failures), *map(printable, run.notes)),
    )


def _line(row: Row, names: Sequence[str]) -> TrendLine:
    return TrendLine(
        where=_where(row),
        verdict=printable(row.verdict),
        new=row.verdict_changed,
        cells=tuple(_cell(row.readings.get(name)) for name in names),
    )


def _where(row: Row) -> str:
    return str(row.step) if row.step is not None else printable(row.path.rpartition("/")[2])


def _cell(reading: Reading | None) -> str:
    """The number with its error, of several seeds the span of their values; an arrow where it changed."""
    if reading is None:
        return "–"
    if reading.num_seeds > 1:
        low, high = number(reading.least, digits=3), number(reading.most, digits=3)
        text = low if low == high else f"{low} … {high}"
    else:
        text = " ".join(part for part in with_error(reading.value, max(0.0, reading.high - reading.value)) if part)
    return f"{text} {ARROWS[reading.move]}".rstrip()


def _spark(series: Series, rows: Sequence[Row], ascii: bool, room: int) -> SparkLine:
    values = [row.readings[series.name].value if series.name in row.readings else None for row in rows]
    drawn = sparkline(values, width=room, ascii=ascii)
    span = "not measured" if drawn.low is None else f"{number(drawn.low)} … {number(drawn.high)}"
    straight = series.move in (Move.UP, Move.DOWN) and not (series.ups and series.downs)
    counted = "" if straight or not series.ups + series.downs else f" ({series.ups} up, {series.downs} down)"
    scale = ", log scale" if drawn.logarithmic else ""
    return SparkLine(name=series.name, picture=drawn.text, span=span, words=WORDS[series.move] + counted + scale)


def _verdicts(rows: Sequence[Row]) -> tuple[str, ...]:
    """The verdicts one after the other, each with the first checkpoint at which it stood."""
    said: list[str] = []
    for row in rows:
        if set(row.verdicts) != {FAILED} and (row.verdict_changed or not said):
            verdict = " | ".join(v for v in row.verdicts if v != FAILED)
            said.append(f"{printable(verdict)} from {_named(row)} on")
    return tuple(said)


def _named(row: Row) -> str:
    return f"step {row.step}" if row.step is not None else _where(row)


def _failure(row: Row) -> str:
    return f"{_named(row)} failed: {printable('; '.join(row.failures))}"


def _sections(table: TrendTable, width: int) -> list[list[RenderableType]]:
    from rich.text import Text

    sparks = grid(4, gap=_GAP)
    sparks.columns[1].no_wrap = True
    for spark in table.sparks:
        sparks.add_row(Text(spark.name), Text(spark.picture), Text(spark.span), Text(spark.words, "dim"))
    remarks = [Text(f"verdict: {', then '.join(table.verdicts)}")] if table.verdicts else []
    notes: list[RenderableType] = [Text(f"note: {note}", "yellow") for note in table.notes]
    head = title(table.run, f"{len(table.lines)} checkpoint{'s' if len(table.lines) != 1 else ''}")
    first, *others = [indented(_rows(table, columns)) for columns in _columns(table, width)]
    return [[head, first], *([other] for other in others), [indented(sparks), *map(indented, remarks)], notes]


def _rows(table: TrendTable, columns: Sequence[int]) -> RenderableType:
    """The checkpoints with some of the numbers."""
    from rich.text import Text

    rows = grid(2 + len(columns), gap=_GAP)
    for place in (0, *range(2, len(rows.columns))):
        rows.columns[place].justify = "right"
    rows.add_row(*(Text(head, "dim") for head in (*table.heads[:2], *(table.heads[2 + c] for c in columns))))
    for line in table.lines:
        color = words_for(line.verdict).color
        verdict = Text(f"{_NEW if line.new else _OLD}{line.verdict}", f"bold {color}" if line.new else color)
        rows.add_row(Text(line.where), verdict, *(Text(line.cells[c]) for c in columns))
    return rows


def _columns(table: TrendTable, width: int) -> list[list[int]]:
    """The numbers that fit beside each other, then those that go into another table below; none is ever cut."""
    fixed = max(len(line.where) for line in table.lines) + max(len(line.verdict) for line in table.lines)
    room = width - fixed - len(_NEW) - 2 * _GAP - 2  # the indent
    found: list[list[int]] = [[]]
    left = room
    for column, name in enumerate(table.heads[2:]):
        needed = _GAP + max(len(name), *(len(line.cells[column]) for line in table.lines))
        if needed > left and found[-1]:
            found.append([])
            left = room
        found[-1].append(column)
        left -= needed
    return found


def _markdown(table: TrendTable) -> list[str]:
    heads = ["step" if table.heads[0] == "step" else "checkpoint", "verdict", *(code(name) for name in table.heads[2:])]
    lines = [f"### {prose(table.run)}", "", _row(heads), "|---:|---|" + "---:|" * (len(heads) - 2)]
    for line in table.lines:
        verdict = prose(line.verdict)
        lines.append(_row([prose(line.where), f"**{verdict}**" if line.new else verdict, *line.cells]))
    lines += ["", *(f"- {code(spark.name)}: {spark.words}, {spark.span}" for spark in table.sparks)]
    lines += [f"- verdict: {', then '.join(prose(verdict) for verdict in table.verdicts)}"] if table.verdicts else []
    return [*lines, *(f"- note: {prose(note)}" for note in table.notes), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(cell, cells))} |"
