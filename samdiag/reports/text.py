"""The report for a terminal: the verdict in colour and in words, what to change, then the numbers behind it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from samdiag.reports.canvas import MIN_WIDTH, draw
from samdiag.reports.digest import digest
from samdiag.reports.numbers import ANY_VALUE
from samdiag.reports.rows import (
    Change,
    DigestedReport,
    FindingRow,
    MarkKind,
    PrescriptionRow,
    ScheduleRow,
    SettingRow,
    SpectrumModel,
    TriedModel,
)
from samdiag.reports.spectrum import draw_axis, draw_labels
from samdiag.reports.words import words_for
from samdiag.types import Diagnosis, Severity

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

ICONS = {Severity.ERROR: "✖", Severity.WARNING: "▲", Severity.INFO: "✔"}
SEVERITY_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "green"}
MARK_STYLES = {"✔": "green", "✖": "red", "?": "yellow"}
_INDENT = 2  # columns, of everything below a section title
_AXIS_WIDTH = 96  # columns at most; a longer axis only separates the marks from their labels


def render(diagnosis: Diagnosis, *, width: int = 100, color: bool = True) -> str:
    """The report as text, at most `width` columns wide, without a final newline; a failure is two lines.

    With `color=False` the text has no escape sequence, and nothing is said by colour alone in either case.
    """
    report = digest(diagnosis)
    if report.failure is not None:
        return draw(_failure(report), width=width, color=color, soft_wrap=True)
    width = max(width, MIN_WIDTH)
    sections = (
        _head(report),
        _prescription(report),
        _tried(report.tried) if report.tried else [],
        _findings(report),
        _warnings(report),
        _evidence(report),
        _spectrum(report.spectrum, width) if report.spectrum else [],
        _settings(report),
        _footer(report),
    )
    return "\n\n".join(draw(*section, width=width, color=color) for section in sections if section)


def _failure(report: DigestedReport) -> Text:
    from rich.text import Text

    assert report.failure is not None
    subject = f"{report.subject}: " if report.subject else ""
    return Text.assemble(
        ("✖ ", "bold red"), (subject, "bold"), (report.failure.what, ""), ("\n→ ", "bold"), (report.failure.todo, "")
    )


def _head(report: DigestedReport) -> list[RenderableType]:
    from rich.text import Text

    color = words_for(report.verdict).color
    headline = Text.assemble((f"{ICONS[report.severity]} {report.headline.upper()}", f"bold {color}"))
    trust = f", {report.confidence.value} confidence" if report.confidence else ""
    headline.append(f"  {report.verdict} · {report.severity.value}{trust}", style="dim")
    subject = Text.assemble((report.subject, "bold"), (" · ".join(["", *report.subject_details]), "dim"))
    return [headline, Text(report.meaning), *([subject] if report.subject else [])]


def _prescription(report: DigestedReport) -> list[RenderableType]:
    from rich.console import Group
    from rich.text import Text

    if not report.prescription:
        return []
    moves = [_move(row) for row in report.prescription]
    room = max(len(move.plain) for move in moves)
    ranges = [_allowed(row) for row in report.prescription]
    table = grid(2)
    for row, move, allowed in zip(report.prescription, moves, ranges, strict=True):
        line = Text.assemble(move, " " * (room - len(move.plain) + 3) if allowed or row.binding else "", allowed)
        if row.binding:
            line.append(f"{' ' * (max(map(len, ranges)) - len(allowed))}   bound by {row.binding}")
        table.add_row(Text(row.name, "bold"), Group(line, Text.assemble(row.reason, (_cited(row.source), "dim"))))
    nothing = all(row.change is Change.KEEP for row in report.prescription)
    return [
        title("What to change", "nothing" if nothing else ""),
        *_ways(report),
        *([indented(Text("setting by setting, held throughout:", "dim"))] if report.schedule else []),
        indented(table),
        *(indented(Text(note)) for note in report.prescription_notes),
    ]


def _ways(report: DigestedReport) -> list[RenderableType]:
    """The schedule, the other ways, and what is missing for a recommendation, each under its name."""
    from rich.text import Text

    table = grid(2)
    if report.schedule is not None:
        table.add_row(Text("do", "bold"), _way(report.schedule, "bold green"))
    for index, row in enumerate(report.alternatives):
        table.add_row(Text("" if index else "or", "bold"), _way(row, ""))
    for index, what in enumerate(report.missing):
        table.add_row(Text("" if index else "missing", "bold"), Text(what, "yellow"))
    return [indented(table)] if table.row_count else []


def _way(row: ScheduleRow, style: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(
        Text.assemble((row.kind, style), ": ", "; ".join(row.phases)),
        Text.assemble(row.effect, (_cited(row.source), "dim")),
        Text(f"risk: {row.risk}", "dim"),
    )


def _move(row: PrescriptionRow) -> Text:
    from rich.text import Text

    match row.change:
        case Change.SET:
            return Text.assemble(f"{row.current} → ", (row.recommended, "bold green"))
        case Change.KEEP:
            return Text.assemble("keep ", (row.current, "green"))
        case Change.NONE:
            return Text.assemble(f"{row.current}: ", (row.change.value, "yellow"))


def _allowed(row: PrescriptionRow) -> str:
    if not row.interval:
        return ""
    return "any value allowed" if row.interval == ANY_VALUE else f"allowed {row.interval}"


def _tried(model: TriedModel) -> list[RenderableType]:
    """Every run on a line of its own, then what was predicted against what was seen."""
    from rich.console import Group
    from rich.text import Text

    runs = grid(4)
    for row in model.runs:
        losses = Group(Text(f"loss {row.loss}", "bold"), Text(f"|g| {row.grad_norm}", "dim"))
        runs.add_row(Text(row.name, "bold"), Text(row.setting), losses, Text(row.outcome))
    compared = grid(2, gap=1)
    for comparison in model.comparisons:
        style = MARK_STYLES[comparison.mark]
        line = Text.assemble((f"{comparison.what}: ", "bold"), f"predicted {comparison.predicted}")
        seen = Text.assemble(("observed ", "dim"), comparison.observed)
        compared.add_row(Text(comparison.mark, f"bold {style}"), Group(line, seen))
    notes = [indented(Text(note, "dim")) for note in model.notes]
    return [title("Tried", model.remark), indented(runs), indented(compared), *notes]


def _findings(report: DigestedReport) -> list[RenderableType]:
    if not report.findings:
        return []
    return [title("Why"), *(indented(_finding(row)) for row in report.findings)]


def _finding(row: FindingRow) -> Table:
    """The message beside its severity, and under it, dimmed, the numbers and the source."""
    from rich.console import Group
    from rich.text import Text

    style = SEVERITY_STYLES[row.severity]
    message = Text.assemble((f"{row.headline}: ", f"bold {style}"), row.message)
    numbers = " · ".join([*(f"{name} {value}" for name, value in row.numbers), row.source])
    table = grid(2, gap=1)
    table.add_row(Text(ICONS[row.severity], f"bold {style}"), Group(message, Text(numbers, "dim")))
    return table


def _evidence(report: DigestedReport) -> list[RenderableType]:
    from rich.text import Text

    if not report.evidence:
        return []
    table = grid(4)
    table.columns[1].justify = "right"
    for row in report.evidence:
        mark = " °" if row.sampling_unknown else ""
        table.add_row(Text(row.label), Text(row.value, "bold"), Text(row.error + mark, "dim"), Text(row.note))
    notes = [f"° {note}" if index == 0 and _has_mark(report) else note for index, note in enumerate(report.footnotes)]
    padded = [indented(Text(note, "dim")) for note in notes]
    return [
        title("Evidence", "± numerical bound plus two standard errors"),
        indented(table),
        *padded,
    ]


def _has_mark(report: DigestedReport) -> bool:
    return any(row.sampling_unknown for row in report.evidence)


def _spectrum(model: SpectrumModel, width: int) -> list[RenderableType]:
    from rich.text import Text

    columns = min(width - _INDENT, _AXIS_WIDTH)
    cells = draw_axis(model, columns)
    axis = Text(" " * _INDENT)
    for character, style in zip(cells.characters, cells.styles, strict=True):
        axis.append(character, style=style)
    above = draw_labels(model, columns, (MarkKind.THRESHOLD, MarkKind.ZERO))
    below = draw_labels(model, columns, (MarkKind.BOTTOM, MarkKind.TOP))
    key = "═ reversed by SAM" if model.mark(MarkKind.THRESHOLD) else ""
    pad = " " * _INDENT
    return [
        title("Hessian spectrum", ", ".join(part for part in (model.scale, key) if part)),
        Text(pad + above, "dim"),
        axis,
        Text(pad + below),
        *(Text(pad + note, "dim") for note in model.notes),
    ]


def _settings(report: DigestedReport) -> list[RenderableType]:
    from rich.text import Text

    if not report.settings:
        return []
    line = Text()
    for said, rows in itertools.groupby(report.settings, key=_said):  # neighbours from one source share its mention
        line.append(" · " if line else "", style="dim").append(", ".join(f"{row.name} {row.value}" for row in rows))
        line.append(f" ({said})" if said else "", style="dim")
    return [title("Settings"), indented(line)]


def _said(row: SettingRow) -> str:
    """Who said it, and who said something else: `command line; optimizer state says 0.05`."""
    others = (f"{source} says {value}" for value, source in row.overruled if not source.startswith("default"))
    return "; ".join([*([row.source] if row.source else []), *others])


def _warnings(report: DigestedReport) -> list[RenderableType]:
    from rich.text import Text

    return [Text.assemble(("▲ ", "bold yellow"), ("Warning: ", "yellow"), warning) for warning in report.warnings]


def _footer(report: DigestedReport) -> list[RenderableType]:
    from rich.text import Text

    return [Text(" · ".join(report.footer), "dim")] if report.footer else []


def title(words: str, remark: str = "") -> Text:
    """A section's title."""
    from rich.text import Text

    return Text.assemble((words, "bold underline"), (f"  {remark}" if remark else "", "dim"))


def _cited(source: str) -> str:
    return f" ({source})" if source else ""


def indented(content: RenderableType) -> RenderableType:
    """What stands below a section's title."""
    from rich.padding import Padding

    return Padding(content, (0, 0, 0, _INDENT))


def grid(columns: int, *, gap: int = 2) -> Table:
    """A table without lines."""
    from rich.table import Table

    table = Table.grid(padding=(0, gap, 0, 0))
    for _ in range(columns):
        table.add_column(overflow="fold")
    return table
