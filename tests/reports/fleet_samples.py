"""Outcomes of a fleet: one of each kind that a gate can make."""

from __future__ import annotations

import dataclasses
from typing import Any

from samdiag.outcomes import Hit, HitKind, Outcome
from samdiag.types import CheckpointInfo, Diagnosis, Setting, Severity, Trust

from .samples import HOSTILE_TEXT, diagnosis, est, failed, hostile, measurements, settings


def hit(name: str = "saddle-attraction", **changes: Any) -> Hit:
    base = Hit(
        kind=HitKind.FINDING,
        name=name,
        severity=Severity.ERROR,
        message="lambda_min = -0.239 and rho_eff·|lambda_min| = 34.3 > 1; every direction that counts is captured.",
    )
    return dataclasses.replace(base, **changes)


def at(path: str, verdict: str = "minimum", *, step: int | None = None, seed: int = 0, **changes: Any) -> Diagnosis:
    """A diagnosis of another checkpoint."""
    info = CheckpointInfo(
        path=path, format="safetensors", fingerprint="sha256:9f2c1e07b3a455d0", num_params=2410, step=step
    )
    said = settings() | {"measure.seed": Setting(value=seed, source="command line", trust=Trust.CLI)}
    return diagnosis(verdict, **{"checkpoint": info, "settings": said} | changes)


def gap() -> Hit:
    return hit("lambda_max < 9.5", kind=HitKind.REQUIREMENT, message="lambda_max is 9.42 ± 0.44, which straddles 9.5.")


def fleet() -> tuple[Outcome, ...]:
    """Passed, accepted, failed, left open, not examined, and two seeds that disagree."""
    small = measurements(lambda_max=est(-1.234e-12, 1.1e-14), lambda_min=est(None), gradient_ratio=est(1.0))
    gone = failed(checkpoint=CheckpointInfo(path="runs/cifar10/epoch_50.pt"), settings={}, timings={})
    strict = hit(
        "sam.rho",
        kind=HitKind.SPEC,
        message="rho comes from the checkpoint itself (optimizer state), and the gate is judged by it.",
    )
    return (
        Outcome(diagnosis=at("runs/cifar10/epoch_1.pt", "descending", step=390), exit_code=0),
        Outcome(
            diagnosis=at("runs/cifar10/epoch_10.pt", "bounce", step=3900),
            exit_code=0,
            accepted=(hit("bounce", severity=Severity.WARNING, message="curvature 0.229 now, 0.231 in the baseline"),),
        ),
        Outcome(
            diagnosis=at("runs/cifar10/epoch_20.pt", "saddle-attraction", step=7800), exit_code=1, hits=(hit(), strict)
        ),
        Outcome(diagnosis=at("runs/cifar10/epoch_30.pt", "minimum", step=11700), exit_code=3, gaps=(gap(),)),
        Outcome(diagnosis=at("runs/cifar10/epoch_40.pt", "undecided", step=15600), exit_code=3),
        Outcome(diagnosis=gone, exit_code=3),
        Outcome(diagnosis=at("runs/実験/final.safetensors", measurements=small), exit_code=0),
        Outcome(diagnosis=at("runs/実験/final.safetensors", "descending", seed=1), exit_code=0),
    )


def hostile_outcomes(text: str = HOSTILE_TEXT) -> tuple[Outcome, ...]:
    """`text` wherever something from outside can be: as path, verdict, message, requirement, failure."""
    whole = hostile(text)
    requirement = hit(text, kind=HitKind.REQUIREMENT, message=text)
    failure = failed(checkpoint=whole.checkpoint)
    assert failure.failure is not None
    said = dataclasses.replace(failure.failure, what=text, todo=text)
    return (
        Outcome(
            diagnosis=whole, exit_code=1, hits=(hit(text, message=text), requirement), gaps=(hit(text, message=text),)
        ),
        Outcome(diagnosis=whole, exit_code=0, accepted=(hit(text, message=text),)),
        Outcome(diagnosis=dataclasses.replace(whole, verdict=text), exit_code=3),
        Outcome(diagnosis=dataclasses.replace(failure, failure=said), exit_code=3),
    )
