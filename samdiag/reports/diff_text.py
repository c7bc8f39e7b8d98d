"""Two diagnoses side by side for a terminal, and as Markdown: settings that differ first, then what changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samdiag.comparing import Comparison, Diff, FindingChange, Shift, Side
from samdiag.quoting import quoted
from samdiag.reports.canvas import MIN_WIDTH, draw
from samdiag.reports.escape import printable
from samdiag.reports.markdown_escape import cell, code, prose
from samdiag.reports.numbers import NOT_MEASURED, estimate_line, number, with_error
from samdiag.reports.text import grid, indented, title
from samdiag.reports.words import words_for

if TYPE_CHECKING:
    from rich.console import RenderableType

SHARED = "The error bars count as independent: on the same samples more may have changed than is said here."
SAME = 1e-9  # relative: bare numbers this near are the same, but for the last bits
FAR = 100.0  # standard errors; how many more they are says nothing
HEADS = ("", "before", "after", "difference", "z")
NAMED = 4  # quantities named on the line of one of many pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffTable:
    """Numbers as texts: a title and rows of name, before, after, difference and z."""

    title: str
    rows: tuple[tuple[str, str, str, str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPage:
    """One pair as texts that are harmless in every medium; `settings` are the rows name, before, after."""

    before: str
    after: str
    verdict: tuple[str, str]
    failures: tuple[str, ...]
    settings: tuple[tuple[str, str, str], ...]
    findings: tuple[str, ...]
    tables: tuple[DiffTable, ...]
    notes: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The verdicts in one line."""
        before, after = self.verdict
        return f"verdict {before}, unchanged" if before == after else f"verdict {before} → {after}"


def digest(pair: Comparison) -> DiffPage:
    """One pair as the texts that each medium shows."""
    tables = (
        _table("Changed beyond both error bars", [shift for shift in pair.shifts if shift.changed]),
        _table("Not changed", [shift for shift in pair.shifts if shift.changed is False]),
        _table(
            "Without (complete) error bars", [s for s in pair.shifts if s.changed is None and s.difference is not None]
        ),
        _table("Measured on one side only", [shift for shift in pair.shifts if shift.difference is None]),
    )
    bars = any(shift.changed is not None for shift in pair.shifts)
    return DiffPage(
        before=_named(pair.before),
        after=_named(pair.after),
        verdict=(_verdict(pair.before), _verdict(pair.after)),
        failures=tuple(map(_failure, filter(lambda side: side.failure is not None, (pair.before, pair.after)))),
        settings=tuple((printable(s.name), _value(s.before), _value(s.after)) for s in pair.settings),
        findings=tuple(_finding(finding) for finding in pair.findings),
        tables=tuple(table for table in tables if table.rows),
        notes=(*map(printable, pair.notes), *([SHARED] if bars else [])),
    )


def render(found: Diff, *, width: int = 100, color: bool = True) -> str:
    """The differences as text, at most `width` columns wide, without a final newline; of many pairs one line each."""
    from rich.text import Text

    width = max(width, MIN_WIDTH)
    sections = _page(digest(found.pairs[0])) if _is_one(found) else _summary(found)
    sections.append([Text(line, "yellow") for line in _one_sided(found)])
    return "\n\n".join(draw(*section, width=width, color=color) for section in sections if section)


def render_markdown(found: Diff) -> str:
    """The differences as Markdown."""
    lines = _markdown(digest(found.pairs[0])) if _is_one(found) else _summary_markdown(found)
    return "\n".join([*lines, *(f"- {prose(line)}" for line in _one_sided(found))]).rstrip("\n")


def _is_one(found: Diff) -> bool:
    return len(found.pairs) == 1


def _failure(side: Side) -> str:
    """Which side failed and why; most reasons begin with the path."""
    what = printable(side.failure.what) if side.failure else ""
    return what if what.startswith(printable(side.name)) else f"{_named(side)}: {what}"


def _named(side: Side) -> str:
    step = side.checkpoint.step if side.checkpoint else None
    more = [f"step {step}"] if step is not None else []
    more += [f"seed {printable(side.seed)}"] if side.seed else []
    return printable(side.name) + (f" ({', '.join(more)})" if more else "")


def _verdict(side: Side) -> str:
    return "failed" if side.failure is not None else printable(side.verdict)


def _value(value: Any) -> str:
    return printable(value if isinstance(value, str) else quoted(value))


def _finding(change: FindingChange) -> str:
    before, after = (_described(side) for side in (change.before, change.after))
    name = printable(change.verdict)
    if before is None:
        return f"+ {name}: {after}"
    if after is None:
        return f"− {name}: was {before}"
    return f"  {name}: {after}" if before == after else f"~ {name}: {before} → {after}"


def _described(side: tuple[str, str, bool] | None) -> str | None:
    if side is None:
        return None
    severity, confidence, contradicted = side
    return f"{severity}, {confidence} confidence{', contradicted by the probe' if contradicted else ''}"


def _table(heading: str, shifts: Sequence[Shift]) -> DiffTable:
    return DiffTable(title=heading, rows=tuple(map(_row, shifts)))


def _row(shift: Shift) -> tuple[str, str, str, str, str]:
    before, after = (NOT_MEASURED if e is None else estimate_line(e) for e in (shift.before, shift.after))
    if shift.difference is None:
        return (shift.name, before, after, "", "")
    if shift.error is None:
        return (shift.name, before, after, number(_rounded(shift)), "")
    difference = " ".join(part for part in with_error(shift.difference, shift.error) if part)
    return (shift.name, before, after, difference, _z(shift.z))


def _rounded(shift: Shift) -> float:
    """The difference of two bare numbers, without what the last bits make of it."""
    sizes = [abs(side.value) for side in (shift.before, shift.after) if side is not None and side.value is not None]
    assert shift.difference is not None
    return 0.0 if abs(shift.difference) <= SAME * max(sizes) else shift.difference


def _z(z: float | None) -> str:
    """How many standard errors; a number without any differs for certain."""
    if z is None:
        return ""
    if abs(z) <= FAR:
        return number(z, digits=2)
    return "exact" if math.isinf(z) else f"{'>' if z > 0 else '<'} {number(math.copysign(FAR, z))}"


def _page(page: DiffPage) -> list[list[RenderableType]]:
    from rich.text import Text

    color = words_for(page.verdict[1]).color
    same = page.verdict[0] == page.verdict[1]
    head = [Text(f"{page.before} → {page.after}", "bold"), Text(page.headline, "" if same else f"bold {color}")]
    sections: list[list[RenderableType]] = [[*head, *(Text(f"✖ {line}", "red") for line in page.failures)]]
    if page.settings:
        rows = grid(3)
        for name, before, after in page.settings:
            rows.add_row(Text(name), Text(before), Text(f"→ {after}"))
        sections.append([title("Settings that differ", "the numbers below are not comparable"), indented(rows)])
    if page.findings:
        sections.append([title("Findings"), *(indented(Text(line)) for line in page.findings)])
    sections += [[title(table.title), indented(_numbers(table))] for table in page.tables]
    sections.append([Text(f"note: {note}", "dim") for note in page.notes])
    return sections


def _numbers(table: DiffTable) -> RenderableType:
    from rich.text import Text

    rows = grid(len(HEADS))
    for column in rows.columns[1:]:
        column.justify = "right"
    rows.add_row(*(Text(head, "dim") for head in HEADS))
    for row in table.rows:
        rows.add_row(*map(Text, row))
    return rows


def _summary(found: Diff) -> list[list[RenderableType]]:
    from rich.text import Text

    rows = grid(3)
    for pair, (where, verdict, changes) in zip(found.pairs, map(_pair, found.pairs), strict=True):
        rows.add_row(
            Text(where), Text(verdict, "bold" if pair.before.verdict != pair.after.verdict else ""), Text(changes)
        )
    return [[title(_heading(found)), indented(rows)]]


def _heading(found: Diff) -> str:
    changed = sum(pair.differs for pair in found.pairs)
    return f"{changed} of {len(found.pairs)} checkpoints differ (matched by {found.by})"


def _pair(pair: Comparison) -> tuple[str, str, str]:
    """A line for one of many: where, the verdicts, and what else changed."""
    page = digest(pair)
    step = pair.after.checkpoint.step if pair.after.checkpoint else None
    where = page.after if pair.before.name == pair.after.name else f"step {step}"  # as they were matched
    changed = sorted((s for s in pair.shifts if s.changed), key=lambda shift: -abs(shift.z or 0.0))
    parts = [f"settings differ: {', '.join(name for name, _, _ in page.settings)}"] if page.settings else []
    if changed:
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        parts.append(", ".join(f"{s.name} {_arrow(s)}" for s in changed[:NAMED]) + more)
    parts += page.failures
    before, after = page.verdict
    return (where, before if before == after else f"{before} → {after}", "; ".join(parts) or "no change")


def _arrow(shift: Shift) -> str:
    return "↑" if (shift.difference or 0.0) > 0 else "↓"


def _one_sided(found: Diff) -> list[str]:
    sides = (("before", found.only_before), ("after", found.only_after))
    return [f"only {side}: {', '.join(map(_named, found))}" for side, found in sides if found]


def _markdown(page: DiffPage) -> list[str]:
    lines = [f"### {prose(page.before)} → {prose(page.after)}", "", f"**{prose(page.headline)}**", ""]
    lines += [f"- failed: {prose(line)}" for line in page.failures]
    if page.settings:
        lines += ["Settings that differ, so that the numbers are not comparable:", ""]
        lines += [f"- {code(name)}: {code(before)} → {code(after)}" for name, before, after in page.settings] + [""]
    lines += [f"- {prose(line)}" for line in page.findings]
    for table in page.tables:
        lines += ["", f"**{table.title}**", "", _line(HEADS), "|---|---:|---:|---:|---:|"]
        lines += [_line((code(row[0]), *row[1:])) for row in table.rows]
    return [*lines, "", *(f"- {prose(note)}" for note in page.notes)]


def _summary_markdown(found: Diff) -> list[str]:
    lines = [f"### {prose(_heading(found))}", "", _line(("checkpoint", "verdict", "changed")), "|---|---|---|"]
    return [*lines, *(_line(tuple(map(prose, _pair(pair)))) for pair in found.pairs), ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(cell, cells))} |"
