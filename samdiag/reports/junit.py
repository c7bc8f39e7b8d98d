"""JUnit XML: a test case per checkpoint. A hit is a failure; what could not be decided is an error, not a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from samdiag.outcomes import Outcome
from samdiag.reports.fleet_rows import FleetReport, FleetRow, Mark, digest_fleet, num_checkpoints

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

SUITE = "samdiag"


def render(outcomes: Sequence[Outcome], *, missing: int = 0) -> str:
    """One document with one suite, as Jenkins' and Ant's readers take it.

    Args:
        outcomes: of the checkpoints that were finished, in order; another seed is another case.
        missing: checkpoints that were not come to; they make one more case, an error.
    """
    from xml.etree import ElementTree

    report = digest_fleet(outcomes, missing=missing)
    suites = ElementTree.Element("testsuites", {"name": SUITE})
    suite = ElementTree.SubElement(suites, "testsuite", _totals(report))
    _properties(suite, report)
    for row in report.rows:
        _case(suite, row)
    if missing:
        case = _element(suite, "testcase", name="the rest of the list", classname=SUITE, time="0")
        _element(case, "error", type="stopped", message=f"stopped with {num_checkpoints(missing)} left")
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'


def _totals(report: FleetReport) -> dict[str, str]:
    errors = len(report.marked(Mark.OPEN)) + bool(report.missing)
    return {
        "name": SUITE,
        "tests": str(len(report.rows) + bool(report.missing)),
        "failures": str(len(report.marked(Mark.FAILED))),
        "errors": str(errors),
        "skipped": "0",
        "time": _time(sum(row.seconds for row in report.rows)),
    }


def _properties(suite: Element, report: FleetReport) -> None:
    """The versions, and the settings that all examined checkpoints were judged under."""
    examined = [row for row in report.rows if row.report.failure is None] or list(report.rows)
    common = set.intersection(*(set(_said(row)) for row in examined)) if examined else set()
    if common:
        properties = _element(suite, "properties")
        for name, value in sorted(common):
            _element(properties, "property", name=name, value=value)


def _said(row: FleetRow) -> list[tuple[str, str]]:
    settings = [(setting.name, f"{setting.value} ({setting.source})") for setting in row.report.settings]
    return [*row.versions, *((name, said.removesuffix(" ()")) for name, said in settings)]


def _case(suite: Element, row: FleetRow) -> None:
    """A checkpoint: its name stays the same from build to build, so that its history can be followed."""
    seed = f" (seed {row.seed})" if row.seed not in {"", "0"} else ""
    case = _element(suite, "testcase", name=f"{row.path}{seed}", classname=SUITE, time=_time(row.seconds))
    if row.mark is Mark.FAILED:
        names = ", ".join(hit.name for hit in row.hits) or row.verdict
        _element(case, "failure", "\n".join(row.why), type=names, message=_first(row))
    elif row.mark is Mark.OPEN:
        names = ", ".join(gap.name for gap in row.gaps) or row.verdict
        _element(case, "error", "\n".join([*row.why, *row.todo]), type=names, message=_first(row))
    _element(case, "system-out", "\n".join(_numbers(row)))


def _first(row: FleetRow) -> str:
    return row.why[0] if row.why else row.reason


def _numbers(row: FleetRow) -> list[str]:
    """What was measured, and what to change, a line each."""
    report = row.report
    lines = [f"verdict: {row.verdict}", *([f"step: {row.step}"] if row.step else [])]
    lines += [f"accepted by the baseline: {hit.name}: {hit.message}" for hit in row.accepted]
    lines += [f"{finding.severity.value} {finding.verdict}: {finding.message}" for finding in report.findings]
    lines += [f"{e.label}: {' '.join(part for part in (e.value, e.error, e.note) if part)}" for e in report.evidence]
    lines += [f"{p.name}: {p.current} → {p.recommended}".removesuffix(" → ") for p in report.prescription]
    return lines


def _element(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    """A child whose text and attributes are what XML can hold: all of them come from printable rows."""
    from xml.etree import ElementTree

    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _time(seconds: float) -> str:
    """Seconds to the millisecond; 0 for what is no duration (a record that was edited)."""
    return f"{seconds:.3f}" if 0 <= seconds < 1e9 else "0"
