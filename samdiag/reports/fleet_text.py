"""Many checkpoints on a terminal: a line as each is finished, then what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from samdiag.outcomes import Outcome
from samdiag.reports.canvas import MIN_WIDTH, draw
from samdiag.reports.fleet_rows import NUMBERS, FleetReport, FleetRow, HitRow, Mark, NumberCell, digest_fleet, fleet_row
from samdiag.reports.github import harmless
from samdiag.reports.numbers import NOT_MEASURED
from samdiag.reports.text import SEVERITY_STYLES
from samdiag.types import VERDICTS_BY_HARM

if TYPE_CHECKING:
    from rich.text import Text

MARK_STYLES = {Mark.PASSED: "green", Mark.NOTED: "yellow", Mark.FAILED: "red", Mark.OPEN: "magenta"}
LISTED = 10  # checkpoints named per part of the summary: more would push the counts off the screen
_VERDICT = max(map(len, VERDICTS_BY_HARM))
_STEP = 8  # columns; a step of ten million and more moves what follows it
_NUMBER = 16  # columns of `0.3015 ± 8.8e-14`; what needs more is written with fewer digits
_PATH = 24  # columns that the path must be left before a number is given room
_INDENT = "  "


def header(*, width: int | None = 100, color: bool = True) -> str:
    """What the columns of `line` are called."""
    from rich.text import Text

    names = [f"{label:<{_NUMBER}}" for label in list(NUMBERS.values())[: _shown_numbers(width)]]
    text = "  ".join([f"{_INDENT}{'verdict':<{_VERDICT}} {'step':>{_STEP}}", *names, "checkpoint"])
    return draw(Text(text, "dim"), width=MIN_WIDTH, color=color, soft_wrap=True)


def line(outcome: Outcome, *, width: int | None = 100, color: bool = True) -> str:
    """One checkpoint, aligned with any other, and below it a line for each hit and gap, or why nothing was decided.

    Args:
        outcome: of the checkpoint that was just finished.
        width: columns; a long path loses its middle, and numbers that have no room are left out. None: no limit.
        color: with escape sequences; nothing is said by colour alone.
    """
    from rich.text import Text

    row = fleet_row(outcome)
    style = MARK_STYLES[row.mark]
    text = Text.assemble((f"{row.mark.value} ", f"bold {style}"), (f"{row.verdict:<{_VERDICT}}", _verdict_style(row)))
    text.append(f" {row.step:>{_STEP}}", "dim")
    for cell in row.numbers[: _shown_numbers(width)]:
        text.append("  ").append(f"{_number(cell):<{_NUMBER}}", "dim" if cell.value == NOT_MEASURED else "")
    path = row.path if not row.seed or row.seed == "0" else f"{row.path} (seed {row.seed})"
    text.append("  ").append(path if width is None else _middle_cut(path, max(width, MIN_WIDTH) - text.cell_len))
    return "\n".join(
        [
            draw(text, width=MIN_WIDTH, color=color, soft_wrap=True),
            *(_below(why, width, color, style) for why in row.why),
        ]
    )


def summary(outcomes: Sequence[Outcome], *, missing: int = 0, width: int | None = 100, color: bool = True) -> str:
    """What all of them come to: counts per verdict, what fails, what is open, what is accepted, where seeds disagree.

    Args:
        outcomes: of all checkpoints that were finished.
        missing: checkpoints that were not come to.
        width, color: as for `line`.
    """
    from rich.text import Text

    report = digest_fleet(outcomes, missing=missing)
    style = MARK_STYLES[report.mark]
    headline = _drawn(Text(report.headline, f"bold {style}"), 1, width, color).removeprefix(_INDENT)
    mark = draw(Text(report.mark.value, f"bold {style}"), width=MIN_WIDTH, color=color)
    return "\n".join([f"{mark} {headline}", *(_drawn(text, indent, width, color) for indent, text in _summary(report))])


def render(outcomes: Sequence[Outcome], *, missing: int = 0, width: int | None = None, color: bool = False) -> str:
    """Header, lines and summary in one text."""
    lines = [line(outcome, width=width, color=color) for outcome in outcomes]
    return "\n".join(
        [header(width=width, color=color), *lines, "", summary(outcomes, missing=missing, width=width, color=color)]
    )


def _summary(report: FleetReport) -> list[tuple[int, Text]]:
    """The lines below the headline, each with how far it is indented."""
    from rich.text import Text

    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.verdicts)
    failed = [(row.path, _names(row.hits)) for row in report.marked(Mark.FAILED)]
    opened = [(row.path, _names(row.gaps) or row.verdict) for row in report.marked(Mark.OPEN)]
    accepted = [(row.path, _names(row.accepted)) for row in report.rows if row.accepted]
    disagreeing = [(found.path, found.text) for found in report.disagreements]
    return [
        *([(1, Text(counts))] if counts else []),
        *_listed("fails the gate", failed, Mark.FAILED),
        *_listed("left open", opened, Mark.OPEN),
        *_listed("accepted by the baseline", accepted, Mark.NOTED),
        *_listed("seeds disagree", disagreeing, Mark.OPEN),
    ]


def _names(hits: tuple[HitRow, ...]) -> str:
    return ", ".join(hit.name for hit in hits)


def _listed(title: str, entries: list[tuple[str, str]], mark: Mark) -> list[tuple[int, Text]]:
    """A part of the summary: its title with a count, and the first few entries."""
    from rich.text import Text

    if not entries:
        return []
    head = Text.assemble((f"{mark.value} ", f"bold {MARK_STYLES[mark]}"), (f"{title}: {len(entries)}", "bold"))
    lines = [(0, head), *((1, Text(f"{path}: {said}")) for path, said in entries[:LISTED])]
    if len(entries) > LISTED:
        lines.append((1, Text(f"… and {len(entries) - LISTED} more", "dim")))
    return lines


def _verdict_style(row: FleetRow) -> str:
    return "" if row.report.failure is not None else SEVERITY_STYLES[row.report.severity]


def _below(why: str, width: int | None, color: bool, style: str) -> str:
    """A remark under its checkpoint."""
    from rich.text import Text

    name, colon, rest = why.partition(": ")
    return _drawn(Text.assemble((name + colon, style if colon else ""), (rest, "")), 2, width, color)


def _drawn(text: Text, indent: int, width: int | None, color: bool) -> str:
    """`text` that many steps indented; where it is wider than the screen its other lines are so too.

    A line that begins in the middle of a path or a message must not read as a command of the CI system.
    """
    from rich.padding import Padding
    from rich.text import Text

    columns = indent * len(_INDENT)
    if width is None:
        return harmless(draw(Text(" " * columns).append_text(text), width=MIN_WIDTH, color=color, soft_wrap=True))
    return harmless(draw(Padding(text, (0, 0, 0, columns)), width=max(width, MIN_WIDTH), color=color))


def _shown_numbers(width: int | None) -> int:
    """How many numbers have room beside a readable path."""
    if width is None:
        return len(NUMBERS)
    left = width - len(_INDENT) - _VERDICT - 1 - _STEP - 2 - _PATH
    return max(0, min(len(NUMBERS), left // (_NUMBER + 2)))


def _number(cell: NumberCell) -> str:
    """Value and error in one column, in fewer digits where they do not fit."""
    return cell.text if cell.value != NOT_MEASURED and len(cell.text) <= _NUMBER else cell.short


def _middle_cut(path: str, room: int) -> str:
    """`path` in at most `room` columns; its end stays, because the name is there."""
    from rich.cells import cell_len, chop_cells

    if cell_len(path) <= room:
        return path
    kept = room - 1  # for the ellipsis
    name = min(cell_len(path.rpartition("/")[2]) + 1, kept)
    end = chop_cells(path[::-1], max(1, name, kept * 2 // 3))[0][::-1]
    left = kept - cell_len(end)
    return f"{chop_cells(path, left)[0] if left > 0 else ''}…{end}"
