"""Realistic diagnoses for every verdict, built from one base that is changed by keyword."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from samdiag.instruments import SecondOpinion, SelfCheck
from samdiag.remedies import Advice, Prescription
from samdiag.types import (
    UNKNOWN,
    VERDICTS_BY_HARM,
    CheckpointInfo,
    Confidence,
    Diagnosis,
    Direction,
    Estimate,
    Failure,
    Finding,
    Measurements,
    Setting,
    Severity,
    Shadowed,
    Trust,
)

HOSTILE = ("[bold red]x[/]", "\x1b]0;evil\x07", "\u202egnp.exe", "two\nlines\r\x9b31m", "\udcff\u2028end", ":smile:")
HOSTILE_TEXT = " ".join(HOSTILE)

SEVERITIES = {
    **dict.fromkeys(("unstable", "hallucinated-minimizer", "saddle-attraction"), Severity.ERROR),
    **dict.fromkeys(("saddle-escaping", "descending", "minimum"), Severity.INFO),
}


def est(value: float | None, error: float = 0.0, sampling_error: float | None = None, **more: Any) -> Estimate:
    return Estimate(value=value, error=error, sampling_error=sampling_error, **more)


def measurements(**changes: Any) -> Measurements:
    """A captured saddle of a small network, seen through 8 batches."""
    base = Measurements(
        rho=0.5,
        variant="sam",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        batch_size=128,
        num_params=11_173_962,
        num_samples=2048,
        num_batches=8,
        population=50_000,
        num_products=148,
        num_gradients=61,
        loss_lower_bound=0.0,
        loss=est(1.2034, 0.0, 0.0112),
        grad_norm=est(0.0812, 0.0, 0.0031),
        perturbed_loss=est(1.2571, 0.0, 0.0119),
        loss_change=est(0.0537, 0.0, 0.0031),
        perturbed_grad_norm=est(0.1043, 0.0, 0.0040),
        gradient_ratio=est(1.284, 0.0, 0.041),
        gradient_cosine=est(-0.412, 0.0, 0.06),
        update_ratio=est(1.281, 0.0, 0.041),
        perturbation_norm=0.5,
        directional_curvature=est(0.21, 0.001, 0.02),
        quadratic_error=0.123,
        lookahead_loss=1.2041,
        lookahead_loss_sgd=1.1987,
        lookahead_cosine=0.61,
        ridge_distance=UNKNOWN,
        ridge_searched=1.0,
        lambda_max=est(9.42, 0.02, 0.21),
        lambda_min=est(-2.31, 0.018, 0.11),
        lambda_min_bound=-2.52,
        lambda_min_bound_probability=0.99,
        top_eigenvalues=(est(9.42, 0.02, 0.21), est(6.1, 0.05, 0.2), est(4.4, 0.05, 0.2)),
        bottom_eigenvalues=(est(-2.31, 0.018, 0.11), est(-1.2, 0.03, 0.1)),
        top_directions=(Direction(eigenvalue=est(9.42, 0.02, 0.21), effective_radius=5.9, noise=0.4, offset=0.01),),
        bottom_directions=(Direction(eigenvalue=est(-2.31, 0.018, 0.11), effective_radius=1.6),),
        spectrum_complete=False,
        effective_radius=1.61,
        noise_trace=est(8.7, 0.0, 0.4),
        jacobian_eigenvalues=None,
        jacobian_zero=None,
        self_check=SelfCheck(passed=True, symmetry_error=1e-7, repeat_error=0.0, finite_difference_error=2e-5),
    )
    return dataclasses.replace(base, **changes)


def finding(verdict: str, **changes: Any) -> Finding:
    base = Finding(
        verdict=verdict,
        severity=SEVERITIES.get(verdict, Severity.WARNING),
        confidence=Confidence.HIGH,
        evidence={"lambda_min": -2.31, "rho_eff": 1.61, "captured": 2, "binding": "smallest magnitude"},
        message="rho_eff·|lambda| is 3.72 along the steepest downhill direction, 1.93 along the flattest: above 1.",
        source="arXiv 2301.06308, Theorem 1 (corrected for several negative directions)",
    )
    return dataclasses.replace(base, **changes)


def prescription(**changes: Any) -> Prescription:
    base = Prescription(
        rho=Advice(
            current=0.5,
            recommended=0.134,
            interval=(0.0, 0.1343),
            binding="saddle trap",
            reason="Half of SGD's escape rate is kept at the steepest downhill direction.",
            source="arXiv 2301.06308, Theorem 1",
        ),
        momentum=Advice(
            current=0.9,
            recommended=0.943,
            interval=(0.943, 0.99),
            binding="SGD's escape factor",
            reason="Makes up for the escape speed that the remaining rho costs.",
            source="arXiv 2301.06308, Section 4",
        ),
        batch_size=Advice(
            current=128,
            recommended=128,
            interval=(8.0, 143.2),
            binding="gradient noise",
            reason="Already small enough for its noise to break the trap.",
            source="arXiv 2301.06308, Section 5",
        ),
        escape_steps=412.3,
        notes=("Diagnose again after the change: leaving one trap can lead into another.",),
    )
    return dataclasses.replace(base, **changes)


def settings() -> dict[str, Setting]:
    return {
        "sam.rho": Setting(
            value=0.5,
            source="command line",
            trust=Trust.CLI,
            shadowed=(Shadowed(value=0.05, source="optimizer state"), Shadowed(value=0.05, source="default")),
        ),
        "sam.variant": Setting(value="sam", source="default", trust=Trust.DEFAULT),
        "sam.lr": Setting(value=0.1, source="optimizer state", trust=Trust.ARTIFACT),
        "sam.momentum": Setting(value=0.9, source="optimizer state", trust=Trust.ARTIFACT),
        "sam.weight_decay": Setting(value=5e-4, source="optimizer state", trust=Trust.ARTIFACT),
        "sam.batch_size": Setting(value=128, source="samdiag.toml", trust=Trust.PROJECT),
        "model.timm": Setting(value="resnet18", source="samdiag.toml", trust=Trust.PROJECT),
        "model.args": Setting(value={"num_classes": 10}, source="samdiag.toml", trust=Trust.PROJECT),
        "data.folder": Setting(value=None, source="default", trust=Trust.DEFAULT),
    }


def diagnosis(verdict: str = "saddle-attraction", **changes: Any) -> Diagnosis:
    base = Diagnosis(
        checkpoint=CheckpointInfo(
            path="runs/cifar10/epoch_40.safetensors",
            format="safetensors",
            fingerprint="sha256:9f2c1e07b3a455d0",
            num_params=11_173_962,
        ),
        settings=settings(),
        measurements=measurements(),
        verdict=verdict,
        findings=(finding(verdict),),
        prescription=prescription(),
        timings={"open": 0.12, "measure": 38.1, "total": 38.4},
        environment={"torch": "2.10.0", "device": "cuda:0"},
        samdiag_version="0.1.0",
    )
    return dataclasses.replace(base, **changes)


def failed(exit_code: int = 3, **changes: Any) -> Diagnosis:
    failure = Failure(
        what="not a checkpoint that samdiag reads: a pickled nn.Module",
        todo="save `model.state_dict()` and inspect that file",
        exit_code=exit_code,
    )
    return diagnosis(
        "undecided", **{"measurements": None, "findings": (), "prescription": None, "failure": failure} | changes
    )


def unbounded() -> Diagnosis:
    """Infinities wherever one can occur."""
    m = measurements(
        effective_radius=math.inf,
        lambda_min=est(-2.31, math.inf, converged=False),
        ridge_searched=math.inf,
        loss=est(math.nan),
        quadratic_error=math.inf,
    )
    advice = dataclasses.replace(prescription().rho, interval=(-math.inf, math.inf), recommended=None, binding=None)
    return diagnosis(
        "undecided",
        measurements=m,
        prescription=prescription(rho=advice, escape_steps=math.inf),
        findings=(finding("undecided", evidence={"bound": -math.inf, "value": math.nan, "nothing": None}),),
    )


def hostile(text: str = HOSTILE_TEXT) -> Diagnosis:
    """`text` in every field that a checkpoint could have a say in."""
    setting = Setting(value=text, source=text, trust=Trust.ARTIFACT, shadowed=(Shadowed(value=[text], source=text),))
    advice = Advice(current=0.1, recommended=None, interval=None, binding=text, reason=text, source=text)
    check = SelfCheck(passed=False, symmetry_error=1.0, repeat_error=1.0, finite_difference_error=None, reason=text)
    opinion = SecondOpinion(
        lambda_max=1.0,
        lambda_max_agrees=False,
        trace=None,
        trace_error=None,
        trace_samdiag=None,
        trace_agrees=None,
        message=text,
        seconds=1.0,
    )
    return diagnosis(
        checkpoint=CheckpointInfo(path=text, format=text, fingerprint=text, num_params=3),
        settings={text: setting, "sam.rho": setting},
        measurements=measurements(notes=(text,), self_check=check, second_opinion=opinion),
        findings=(
            finding("saddle-attraction", message=text, source=text, evidence={text: text}),
            finding(text, message=text),
        ),
        prescription=Prescription(rho=advice, momentum=advice, batch_size=advice, notes=(text,)),
        warnings=(text,),
        environment={text: text},
        samdiag_version=text,
    )


def every_kind() -> dict[str, Diagnosis]:
    """One diagnosis per verdict, and the awkward ones."""
    return {
        **{verdict: diagnosis(verdict) for verdict in VERDICTS_BY_HARM},
        "failed": failed(),
        "failed-without-checkpoint": failed(2, checkpoint=None),
        "unbounded": unbounded(),
        "hostile": hostile(),
        "bare": diagnosis(measurements=None, prescription=None, findings=(), settings={}, timings={}, environment={}),
    }
