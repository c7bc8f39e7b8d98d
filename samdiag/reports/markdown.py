"""The outcome as Markdown, for a comment on a pull request: what fails first, the rest folded, of bounded length."""

from __future__ import annotations

from collections.abc import Sequence

from samdiag.outcomes import Outcome
from samdiag.reports.fleet_rows import NUMBERS, FleetReport, FleetRow, Mark, digest_fleet, num_checkpoints
from samdiag.reports.markdown_escape import cell, code, prose
from samdiag.reports.numbers import ANY_VALUE
from samdiag.reports.rows import Change, FindingRow, PrescriptionRow

LIMIT = 65_536  # characters that GitHub takes in a comment
EXPLAINED = 20  # checkpoints whose findings are written out: nobody reads more, and the table names the others
_RESERVE = 600  # characters kept for the lines that say what was left out
_HEAD = f"| | checkpoint | step | verdict | {' | '.join(NUMBERS.values())} |\n|---|---|---:|---|{'---|' * len(NUMBERS)}"


def render(outcomes: Sequence[Outcome], *, missing: int = 0, limit: int = LIMIT) -> str:
    """A heading with the outcome, a table of the checkpoints, and for those that need it why and what to change.

    Args:
        outcomes: of the checkpoints that were finished.
        missing: checkpoints that were not come to.
        limit: of the length in characters; what does not fit is counted.
    """
    report = digest_fleet(outcomes, missing=missing)
    loud = [row for row in report.worst_first if row.mark is not Mark.PASSED]
    quiet = report.marked(Mark.PASSED)
    text = _Bounded(limit)
    text.add(f"### {report.mark.value} samdiag: {report.headline}\n")
    text.add(_counts(report))
    _table(text, loud)
    unsaid = sum(not text.add(_explained(row)) for row in loud[:EXPLAINED]) + len(loud[EXPLAINED:])
    if unsaid:
        text.insist(f"{num_checkpoints(unsaid)} more not written out; the JSON report has them.\n")
    for found in report.disagreements:
        text.add(f"- Seeds disagree about {code(found.path)}: {prose(found.text)}\n")
    _table(text, quiet, title=f"{num_checkpoints(len(quiet))} without a finding" if loud else "")
    return text.text


class _Bounded:
    """Text that grows by whole blocks as long as they fit."""

    def __init__(self, limit: int) -> None:
        self._blocks: list[str] = []
        self._left = limit - _RESERVE

    def add(self, block: str) -> bool:
        """Whether `block` had room."""
        fits = len(block) + 1 <= self._left
        if fits:
            self._blocks.append(block)
            self._left -= len(block) + 1
        return fits

    def insist(self, block: str) -> None:
        """Adds a short block that has its room in the reserve."""
        self._blocks.append(block)

    @property
    def text(self) -> str:
        """All blocks, without a final newline."""
        return "\n".join(self._blocks).rstrip("\n")


def _counts(report: FleetReport) -> str:
    return ", ".join(f"{count} {prose(verdict)}" for verdict, count in report.verdicts) + "\n"


def _table(text: _Bounded, rows: Sequence[FleetRow], *, title: str = "") -> None:
    """As many rows as fit, folded under a title if there is one, then how many did not fit."""
    opening = f"<details><summary>{title}</summary>\n\n{_HEAD}" if title else _HEAD
    if not rows:
        return
    lines = iter(rows)
    left = len(rows)
    if text.add(opening):
        while left and text.add(_row(next(lines))):
            left -= 1
        if left:
            text.insist(f"\n… and {num_checkpoints(left)} more.")
        text.insist("\n</details>\n" if title else "")
    else:
        text.insist(f"… and {title or num_checkpoints(left)}.\n")


def _row(row: FleetRow) -> str:
    cells = (row.mark.value, _name(row), row.step, prose(row.verdict), *(number.text for number in row.numbers))
    return f"| {' | '.join(map(cell, cells))} |"


def _name(row: FleetRow) -> str:
    """The path, and the seed where it is not the usual one."""
    return code(row.path) + (f" seed {prose(row.seed)}" if row.seed not in {"", "0"} else "")


def _explained(row: FleetRow) -> str:
    """Why a checkpoint is in the first table: hits, gaps, findings with their numbers, and what to change."""
    lines = [f"#### {row.mark.value} {_name(row)}: {prose(row.verdict)}", ""]
    for title, hits in (("fails", row.hits), ("left open", row.gaps), ("accepted by the baseline", row.accepted)):
        lines += [f"- **{title}** {prose(hit.name)}: {prose(hit.message)}" for hit in hits]
    if row.report.failure is not None:
        lines.append(f"- **found** {prose(row.reason)}")
    lines += [f"- **do** {prose(line)}" if n == 0 else f"  - {code(line)}" for n, line in enumerate(row.todo)]
    said = {hit.message for hit in (*row.hits, *row.gaps, *row.accepted)}
    lines += [_finding(finding, brief=finding.message in said) for finding in row.report.findings]
    return "\n".join([*lines, *_remedy(row), ""])


def _remedy(row: FleetRow) -> list[str]:
    """What to change: the schedule that does it, else setting by setting; and what would have to be known for more."""
    report = row.report
    lines = [f"- **missing** {prose(what)}" for what in report.missing]
    if report.schedule is not None:
        done = f"{prose(report.schedule.kind)}: {prose('; '.join(report.schedule.phases))}"
        lines.append(f"- **do** {done}. {prose(report.schedule.effect)}")
    held = ", or held throughout" if report.schedule is not None else ""
    changes = [advice for advice in report.prescription if advice.change is Change.SET]
    return lines + [f"- **change{held}** {_change(advice)}" for advice in changes]


def _finding(row: FindingRow, *, brief: bool) -> str:
    """A finding with its evidence; without its message where a hit has said it."""
    head = f"- **{row.severity.value}** {prose(row.verdict)}, {row.confidence.value} confidence"
    message = "" if brief else f": {prose(row.message)}"
    numbers = ", ".join(code(f"{name} {value}") for name, value in row.numbers)
    return f"{head}{message}\n  evidence: {numbers}; {prose(row.source)}"


def _change(row: PrescriptionRow) -> str:
    allowed = f" (allowed {row.interval})" if row.interval and row.interval != ANY_VALUE else ""
    bound = f", bound by {prose(row.binding)}" if row.binding else ""
    return f"{row.name}: {prose(row.current)} → **{row.recommended}**{allowed}{bound}. {prose(row.reason)}"
