"""SARIF 2.1.0: findings as results, verdicts as rules, and what could not be examined as notifications of the tool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from samdiag.outcomes import Hit, HitKind, Outcome
from samdiag.reports.escape import printable
from samdiag.reports.fleet_rows import num_checkpoints, todo_lines
from samdiag.reports.words import words_for
from samdiag.types import VERDICTS_BY_HARM, Diagnosis, Finding, Severity

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
GATE_RULES = {
    HitKind.REQUIREMENT: "A measurement that the gate asks for with --require",
    HitKind.SPEC: "What --strict-spec asks of the settings",
}  # of hits that are no findings


def render(outcomes: Sequence[Outcome], *, missing: int = 0) -> str:
    """One log with one run, indented. Findings that are information are no results: there is nothing to act on.

    Args:
        outcomes: of the checkpoints that were finished.
        missing: checkpoints that were not come to.
    """
    results = [result for outcome in outcomes for result in _results(outcome)]
    rules = _rules(outcomes, {result["ruleId"] for result in results})
    index = {rule["id"]: number for number, rule in enumerate(rules)}
    driver: dict[str, Any] = {"name": "samdiag", "rules": rules}
    versions = sorted({outcome.diagnosis.samdiag_version for outcome in outcomes} - {""})
    if versions:
        driver["version"] = printable(", ".join(versions))
    notes = [note for outcome in outcomes for note in _notifications(outcome.diagnosis)]
    if missing:
        notes.append(_notification(f"stopped with {num_checkpoints(missing)} left"))
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": not notes, "toolExecutionNotifications": notes}],
        "results": [result | {"ruleIndex": index[result["ruleId"]]} for result in results],
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)


def _rules(outcomes: Sequence[Outcome], used: set[str]) -> list[dict[str, Any]]:
    """The rules that results name: verdicts with their help and the theorem behind them, and the gate's own."""
    sources: dict[str, str] = {}
    for outcome in outcomes:
        for finding in outcome.diagnosis.findings:
            sources.setdefault(printable(finding.verdict), printable(finding.source))
    order = [verdict for verdict in VERDICTS_BY_HARM if verdict in used]
    order += sorted(used - set(order))
    return [_rule(name, sources.get(name, "")) for name in order]


def _rule(name: str, source: str) -> dict[str, Any]:
    for kind, text in GATE_RULES.items():
        if name == kind.value:
            return {"id": name, "shortDescription": {"text": text}, "defaultConfiguration": {"level": "error"}}
    words = words_for(name)
    cited = f" Source: {source}" if source else ""
    return {
        "id": name,
        "shortDescription": {"text": words.headline},
        "fullDescription": {"text": words.meaning},
        "help": {"text": f"{words.meaning}{cited}"},
        "defaultConfiguration": {"level": LEVELS[words.severity]},
    }


def _results(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The findings of one checkpoint that ask for something, then what else the gate fails on or leaves open."""
    diagnosis = outcome.diagnosis
    accepted = {hit.name for hit in outcome.accepted if hit.kind is HitKind.FINDING}
    failing = {hit.name for hit in outcome.hits if hit.kind is HitKind.FINDING}
    for finding in diagnosis.findings:
        if finding.contradicted or (finding.severity is Severity.INFO and finding.verdict not in failing):
            continue
        level, message = LEVELS[finding.severity], finding.message
        found = _result(diagnosis, printable(finding.verdict), level, message) | {"properties": _evidence(finding)}
        if finding.verdict in accepted:
            found["suppressions"] = [{"kind": "external", "justification": "accepted by the baseline"}]
        yield found
    for hit in outcome.hits:
        if hit.kind is not HitKind.FINDING:
            yield _gate_result(diagnosis, hit, LEVELS[hit.severity], "")
    for gap in outcome.gaps:
        yield _gate_result(diagnosis, gap, "warning", "left open: ")


def _gate_result(diagnosis: Diagnosis, hit: Hit, level: str, note: str) -> dict[str, Any]:
    rule = printable(hit.name) if hit.kind is HitKind.FINDING else hit.kind.value
    return _result(diagnosis, rule, level, f"{hit.name}: {note}{hit.message}")


def _result(diagnosis: Diagnosis, rule: str, level: str, message: str) -> dict[str, Any]:
    result = {"ruleId": rule, "level": level, "message": {"text": printable(message) or rule}}
    return result | _located(diagnosis)


def _located(diagnosis: Diagnosis) -> dict[str, Any]:
    """Where it is: the path as a relative or absolute URI reference, and a line, without which GitHub shows nothing."""
    if diagnosis.checkpoint is None:
        return {}
    uri = quote(diagnosis.checkpoint.path.encode("utf-8", "surrogatepass"), safe="/")
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": 1, "endLine": 1}}
    return {"locations": [{"physicalLocation": place}]}


def _evidence(finding: Finding) -> Mapping[str, Any]:
    return {
        "confidence": finding.confidence.value,
        "source": printable(finding.source),
        "evidence": {printable(name): printable(value) for name, value in finding.evidence.items()},
    }


def _notifications(diagnosis: Diagnosis) -> Iterator[dict[str, Any]]:
    failure = diagnosis.failure
    if failure is not None:
        yield _notification("; ".join([printable(failure.what), *todo_lines(diagnosis)])) | _located(diagnosis)


def _notification(text: str) -> dict[str, Any]:
    return {"level": "error", "message": {"text": text}}
