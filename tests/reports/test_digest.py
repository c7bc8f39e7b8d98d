from __future__ import annotations

import dataclasses

import pytest

from samdiag.remedies import Advice
from samdiag.reports.digest import SAMPLING_UNKNOWN, digest
from samdiag.reports.escape import printable
from samdiag.reports.rows import Change, EvidenceRow
from samdiag.reports.words import VERDICT_WORDS
from samdiag.types import UNKNOWN, VERDICTS_BY_HARM, Confidence, Measurements, Severity

from . import samples
from .samples import HOSTILE, diagnosis, est, measurements


def row(m: Measurements, label: str) -> EvidenceRow:
    found = [row for row in digest(diagnosis(measurements=m)).evidence if row.label.startswith(label)]
    assert len(found) == 1, f"{label}: {found}"
    return found[0]


def test_every_verdict_has_words() -> None:
    assert tuple(VERDICT_WORDS) == VERDICTS_BY_HARM


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_meaning_is_one_sentence_and_headline_is_short(verdict: str) -> None:
    words = VERDICT_WORDS[verdict]
    assert len(words.headline.split()) <= 4
    assert words.meaning.endswith(".")
    assert words.meaning.count(". ") == 0


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_the_head_says_the_verdict(verdict: str) -> None:
    report = digest(diagnosis(verdict))
    assert (report.verdict, report.headline) == (verdict, VERDICT_WORDS[verdict].headline)
    assert report.severity is samples.SEVERITIES.get(verdict, Severity.WARNING)
    assert report.confidence is Confidence.HIGH


def test_the_finding_decides_the_severity() -> None:
    mild = samples.finding("bounce", severity=Severity.INFO)
    assert digest(diagnosis("bounce", findings=(mild,))).severity is Severity.INFO


def test_findings_are_ordered_by_harm() -> None:
    findings = tuple(samples.finding(verdict) for verdict in ("minimum", "x-plugin", "bounce", "unstable"))
    assert [row.verdict for row in digest(diagnosis(findings=findings)).findings] == [
        "unstable",
        "bounce",
        "minimum",
        "x-plugin",
    ]


def test_subject() -> None:
    report = digest(diagnosis())
    assert report.subject == "runs/cifar10/epoch_40.safetensors"
    assert report.subject_details == ("safetensors", "11.2 M parameters", "sha256:9f2c1e07…")


def test_prescription_rows() -> None:
    rho, momentum, batch = digest(diagnosis()).prescription
    assert (rho.change, rho.current, rho.recommended) == (Change.SET, "0.5", "0.134")
    assert (rho.interval, rho.binding) == ("≤ 0.1343", "saddle trap")
    assert (momentum.change, momentum.interval) == (Change.SET, "0.943 … 0.99")
    assert (batch.change, batch.current) == (Change.KEEP, "128")


def test_no_recommendation_and_full_batch() -> None:
    none = Advice(current=None, recommended=None, interval=None, binding=None, reason="no saddle", source="s")
    prescription = samples.prescription(rho=none, batch_size=none)
    report = digest(diagnosis(measurements=measurements(batch_size=None), prescription=prescription))
    assert (report.prescription[0].change, report.prescription[0].current) == (Change.NONE, "unknown")
    assert report.prescription[2].current == "full batch"


def test_escape_steps_come_first_among_the_notes() -> None:
    assert digest(diagnosis()).prescription_notes[0].endswith("about 413 steps to leave the saddle.")


def test_an_estimate_shows_value_and_combined_error() -> None:
    assert row(measurements(), "smallest eigenvalue") == EvidenceRow(
        label="smallest eigenvalue λ_min",
        value="−2.31",
        error="± 0.24",
        note="> −2.52 with probability 0.99 on these samples",
    )


def test_the_bound_speaks_of_the_samples_unless_they_are_all_there_is() -> None:
    assert row(measurements(population=2048), "smallest eigenvalue").note == "> −2.52 with probability 0.99"


def test_an_eigenvalue_without_its_bias_says_what_the_samples_alone_say() -> None:
    m = measurements(lambda_max=est(9.0, 0.0, 0.5, bias=1.25), lr=None)
    assert row(m, "largest eigenvalue").note == "10.25 by these samples alone"
    m = measurements(lambda_max=est(9.0, 0.0, 0.5, bias=0.01), lr=None)
    assert row(m, "largest eigenvalue").note == ""


def test_what_was_not_measured_says_so() -> None:
    assert row(measurements(lambda_max=UNKNOWN), "largest eigenvalue").value == "not measured"


def test_not_converged_is_said() -> None:
    m = measurements(lambda_max=est(9.0, 1.0, 0.1, converged=False), lr=None)
    assert row(m, "largest eigenvalue").note == "not converged"


@pytest.mark.parametrize(("population", "unknown"), [(50_000, True), (None, True), (2048, False)])
def test_sampling_error_is_unknown_unless_everything_was_seen(population: int | None, unknown: bool) -> None:
    m = measurements(loss=est(1.2), population=population)
    report = digest(diagnosis(measurements=m))
    assert row(m, "loss f(x)").sampling_unknown is unknown
    assert (SAMPLING_UNKNOWN in report.footnotes) is unknown


@pytest.mark.parametrize(
    ("distance", "value", "note"),
    [
        (UNKNOWN, "none found", "none within 1 uphill"),
        (est(0.31, 0.01, 0.0), "0.310", "rho 0.5 reaches past it"),
        (est(0.9, 0.01, 0.0), "0.900", "rho 0.5 stays short of it"),
        (est(0.5, 0.01, 0.0), "0.500", "rho 0.5 is at it within error"),
    ],
)
def test_ridge(distance: samples.Estimate, value: str, note: str) -> None:
    ridge = row(measurements(ridge_distance=distance), "ridge")
    assert (ridge.value, ridge.note) == (value, note)


@pytest.mark.parametrize(
    ("ratio", "note"),
    [
        (est(0.02, 0.0, 0.01), "below 0.1: what SAM follows has vanished"),
        (est(0.09, 0.0, 0.01), ""),
        (est(1.0, 0.0, 0.01), ""),
        (est(3.0, 0.0, 0.1), "above 2: a bounce, or closer to the valley than rho"),
    ],
)
def test_ratio_note_respects_the_error(ratio: samples.Estimate, note: str) -> None:
    assert row(measurements(gradient_ratio=ratio), "ratio ‖g+‖").note == note


def test_rows_that_do_not_apply_are_left_out() -> None:
    m = measurements(weight_decay=0.0, noise_trace=UNKNOWN, quadratic_error=None, lookahead_loss=None)
    labels = " ".join(row.label for row in digest(diagnosis(measurements=m)).evidence)
    assert not any(
        word in labels for word in ("weight decay", "noise", "second-order", "2 steps", "PyHessian", "check")
    )


def test_settings_say_who_said_them_and_fall_back_on_the_measurement() -> None:
    settings = {"sam.rho": samples.settings()["sam.rho"], "data.batch_size": samples.settings()["model.timm"]}
    rows = {row.name: row for row in digest(diagnosis(settings=settings)).settings}
    assert (rows["rho"].value, rows["rho"].source) == ("0.5", "command line")
    assert rows["rho"].overruled == (("0.05", "optimizer state"), ("0.05", "default"))
    assert (rows["batch_size"].value, rows["batch_size"].source) == ("128", "")


def test_footer_says_effort_time_and_versions() -> None:
    assert digest(diagnosis()).footer == (
        "2048 of 50000 samples",
        "8 batches",
        "148 Hessian products",
        "61 gradients",
        "38 s",
        "samdiag 0.1.0",
        "torch 2.10.0",
        "device cuda:0",
    )


def test_time_is_the_sum_without_a_total() -> None:
    assert "3 s" in digest(diagnosis(timings={"open": 1.0, "measure": 2.0})).footer


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_is_printable_in_the_rows(text: str) -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, tuple | list):
            return [text for item in value for text in texts(item)]
        if dataclasses.is_dataclass(value):
            return [text for field in dataclasses.fields(value) for text in texts(getattr(value, field.name))]
        return []

    for shown in texts(digest(samples.hostile(text))):
        assert shown == printable(shown)
