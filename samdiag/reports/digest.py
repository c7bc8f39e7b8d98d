"""Diagnosis → plain rows, the same for every medium: what to say is decided here, how it looks elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from samdiag.reports import prescribed
from samdiag.reports.escape import printable
from samdiag.reports.evidence import everything_seen, evidence_rows
from samdiag.reports.numbers import NOT_MEASURED, count, number, seconds
from samdiag.reports.probe import tried_model
from samdiag.reports.provenance import setting_row, value_text
from samdiag.reports.rows import (
    DigestedReport,
    EvidenceRow,
    FailureRow,
    FindingRow,
    SettingRow,
)
from samdiag.reports.spectrum import spectrum_model
from samdiag.reports.words import PRODUCT_WORDS, words_for
from samdiag.types import VERDICTS_BY_HARM, CheckpointInfo, Diagnosis, Finding, Measurements

SAMPLING_UNKNOWN = "sampling error unknown: a single batch cannot show it"
SHOWN_SETTINGS = ("variant", "rho", "lr", "momentum", "weight_decay", "batch_size")  # those a verdict depends on
UNUSUAL_SETTINGS = {
    "weights": "raw",
    "sam.nesterov": False,
    "sam.dampening": 0.0,
    "sam.micro_batch": None,
    "sam.weight_decay_in": "update",
    "sam.alpha": None,
    "sam.eta_a": None,
    "measure.mode": "eval",
}  # shown where they are not this
_FINGERPRINT = 16  # characters; 64 bits tell any two checkpoints of a project apart


def digest(diagnosis: Diagnosis) -> DigestedReport:
    """All rows of `diagnosis`, with numbers formatted and every outside text made printable."""
    words = words_for(diagnosis.verdict)
    findings = sorted(diagnosis.findings, key=_harm)
    leading = next((finding for finding in findings if finding.verdict == diagnosis.verdict), None)
    m, p = diagnosis.measurements, diagnosis.prescription
    evidence = evidence_rows(m) if m else ()
    failure = diagnosis.failure
    return DigestedReport(
        subject=printable(diagnosis.checkpoint.path) if diagnosis.checkpoint else "",
        subject_details=_details(diagnosis.checkpoint),
        verdict=printable(diagnosis.verdict),
        headline=printable(words.headline),
        meaning=words.meaning,
        severity=leading.severity if leading else words.severity,
        confidence=leading.confidence if leading else None,
        prescription=prescribed.advice_rows(p, m),
        prescription_notes=prescribed.notes(p),
        schedule=prescribed.schedule_row(p.schedule) if p and p.schedule else None,
        alternatives=tuple(prescribed.schedule_row(other) for other in p.alternatives) if p else (),
        missing=tuple(printable(what) for what in p.missing) if p else (),
        findings=tuple(_finding_row(finding) for finding in findings),
        evidence=evidence,
        spectrum=spectrum_model(m) if m else None,
        settings=_setting_rows(diagnosis),
        warnings=tuple(printable(warning) for warning in diagnosis.warnings),
        footnotes=_footnotes(m, evidence),
        footer=_footer(diagnosis),
        failure=FailureRow(what=printable(failure.what), todo=printable(failure.todo)) if failure else None,
        tried=tried_model(diagnosis.probe) if diagnosis.probe else None,
    )


def _harm(finding: Finding) -> int:
    order = VERDICTS_BY_HARM
    return order.index(finding.verdict) if finding.verdict in order else len(order)


def _details(checkpoint: CheckpointInfo | None) -> tuple[str, ...]:
    if checkpoint is None:
        return ()
    details = [printable(checkpoint.format)] if checkpoint.format else []
    if checkpoint.num_params is not None:
        details.append(f"{count(checkpoint.num_params)} parameters")
    if checkpoint.fingerprint:
        details.append(printable(checkpoint.fingerprint, limit=_FINGERPRINT))
    return tuple(details)


def _finding_row(finding: Finding) -> FindingRow:
    return FindingRow(
        verdict=printable(finding.verdict),
        headline=printable(words_for(finding.verdict).headline),
        severity=finding.severity,
        confidence=finding.confidence,
        message=printable(finding.message),
        numbers=tuple((printable(name), _evidence_text(value)) for name, value in finding.evidence.items()),
        source=printable(finding.source),
    )


def _evidence_text(value: float | int | str | None) -> str:
    return printable(value) if isinstance(value, str) else number(value)


def _setting_rows(diagnosis: Diagnosis) -> tuple[SettingRow, ...]:
    """The settings that verdicts depend on: as resolved, or as the measurement had them where nothing was recorded."""
    rows = []
    for name in SHOWN_SETTINGS:
        said = next((key for key in (f"sam.{name}", f"optimizer.{name}", name) if key in diagnosis.settings), None)
        if said is not None:
            rows.append(setting_row(name, diagnosis.settings[said]))
        elif diagnosis.measurements is not None:
            value = getattr(diagnosis.measurements, name)
            shown = "full batch" if name == "batch_size" and value is None else value_text(value)
            rows.append(SettingRow(name=name, value=shown, source=""))
    for key, usual in UNUSUAL_SETTINGS.items():
        setting = diagnosis.settings.get(key)
        if setting is not None and setting.value != usual:
            rows.append(setting_row(key.rpartition(".")[2], setting))
    return tuple(rows)


def _footnotes(m: Measurements | None, evidence: tuple[EvidenceRow, ...]) -> tuple[str, ...]:
    if m is None:
        return ()
    notes = [printable(note) for note in m.notes]
    return (SAMPLING_UNKNOWN, *notes) if any(row.sampling_unknown for row in evidence) else tuple(notes)


def _footer(diagnosis: Diagnosis) -> tuple[str, ...]:
    """What was looked at, what it cost, and which versions did it."""
    parts = _effort(diagnosis.measurements) if diagnosis.measurements else []
    if diagnosis.timings:
        parts.append(seconds(_total(diagnosis.timings)))
    if diagnosis.samdiag_version:
        parts.append(f"samdiag {printable(diagnosis.samdiag_version)}")
    parts += [f"{printable(name)} {printable(value)}" for name, value in diagnosis.environment.items()]
    return tuple(parts)


def _effort(m: Measurements) -> list[str]:
    samples = f"{count(m.num_samples)} samples" if m.num_samples else f"samples {NOT_MEASURED}"
    if everything_seen(m):
        samples = f"all {count(m.num_samples)} samples"
    elif m.population is not None:
        samples = f"{count(m.num_samples)} of {count(m.population)} samples"
    batches = f"{count(m.num_batches)} batch{'es' if m.num_batches != 1 else ''}"
    return [
        samples,
        batches,
        f"{count(m.num_products)} Hessian products{_price(m)}",
        f"{count(m.num_gradients)} gradients",
    ]


def _price(m: Measurements) -> str:
    """What one product cost, and what the other ways would have cost; "" where they were not timed."""
    engine = m.engine
    if engine is None or engine.gradients is None:
        return ""
    others = [
        f"{PRODUCT_WORDS[t.name]} {t.gradients:.1f}" for t in engine.tried if t.gradients and t.name != engine.name
    ]
    kept = f", {100 * engine.kept_share:.0f} % of them" if engine.name == "kept" and engine.kept_share < 1 else ""
    joined = f", batches joined to {count(engine.joined)}" if engine.joined else ""
    how = "; ".join([f"{PRODUCT_WORDS[engine.name]}{kept}{joined}", *([", ".join(others)] if others else [])])
    return f" of {engine.gradients:.1f} gradients each ({how})"


def _total(timings: Mapping[str, float]) -> float:
    return timings["total"] if "total" in timings else sum(timings.values())
