"""GitHub Actions: annotations as workflow commands on stdout, and the text of the step summary."""

from __future__ import annotations

from collections.abc import Sequence

from samdiag.outcomes import Outcome
from samdiag.reports import markdown
from samdiag.reports.escape import printable
from samdiag.reports.fleet_rows import FleetReport, FleetRow, HitRow, Mark, digest_fleet
from samdiag.types import Severity

LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
SUMMARY_LIMIT = 250_000  # characters, below the 1 MiB that a step summary may have, four bytes each
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"  # holds the name of the file that the summary is appended to


def render(outcomes: Sequence[Outcome], *, missing: int = 0) -> str:
    """One workflow command per line: what fails, then what is open, then what is accepted; last the outcome.

    GitHub shows the first ten of each level per step; the others are in the step's log and in its summary.

    Args:
        outcomes: of the checkpoints that were finished.
        missing: checkpoints that were not come to.
    """
    report = digest_fleet(outcomes, missing=missing)
    lines = [line for row in report.worst_first for line in _commands(row)]
    return "\n".join([*lines, _closing(report)])


def summary(outcomes: Sequence[Outcome], *, missing: int = 0) -> str:
    """The Markdown to append to the file that GITHUB_STEP_SUMMARY names."""
    return markdown.render(outcomes, missing=missing, limit=SUMMARY_LIMIT) + "\n"


def command(level: str, message: str, **properties: str) -> str:
    """`::level name=value,…::message` on one line, escaped as the runner reads it; empty properties are left out."""
    said = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    return f"::{level}{' ' if said else ''}{said}::{_data(message)}"


def harmless(text: str) -> str:
    """`text` that a runner reads no command in, for what is not meant as one: a report, a message, a wrapped line."""
    return "\n".join(_disarmed(line) for line in text.split("\n"))


def _disarmed(line: str) -> str:
    rest = line.lstrip()  # the runner strips it too
    if rest.startswith("::"):
        line = f"{line[: len(line) - len(rest)]}\\{rest}"
    return line.replace("##[", "#\\#[")  # the older form, found anywhere in a line


def _commands(row: FleetRow) -> list[str]:
    """The annotations of one checkpoint."""

    def annotate(hit: HitRow, note: str = "", level: str = "") -> str:
        title = f"{row.path}: {hit.name}{note}"
        return command(level or LEVELS[hit.severity], hit.message, file=row.path, title=title)

    lines = [annotate(hit) for hit in row.hits]
    lines += [annotate(gap, " left open", "warning") for gap in row.gaps]
    if row.mark is Mark.OPEN and not row.gaps:
        level = "error" if row.report.failure else "warning"
        message = "; ".join([row.reason, *row.todo])
        lines.append(command(level, message, file=row.path, title=f"{row.path}: {row.verdict}"))
    return lines + [annotate(hit, " accepted by the baseline", "notice") for hit in row.accepted]


def _closing(report: FleetReport) -> str:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in report.verdicts)
    seeds = "".join(f"; seeds disagree about {found.path}: {found.text}" for found in report.disagreements)
    return command("notice", f"{report.headline}: {verdicts}{seeds}".removesuffix(": "), title="samdiag")


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
