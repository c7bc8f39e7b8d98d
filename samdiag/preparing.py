"""open → resolve → build: a checkpoint's problem with its weights in, and the settings to measure it with."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.encoding import jsonable
from samdiag.errors import UsageError
from samdiag.probes import Verify
from samdiag.types import CheckpointInfo, Problem, Setting, Trust

if TYPE_CHECKING:
    from samdiag.formats import Checkpoint
    from samdiag.formats.momentum import Buffers
    from samdiag.measure.settings import MeasureSettings
    from samdiag.spec.workshop import Workshop


@dataclass(slots=True)
class Known:
    """What is known about a checkpoint so far: all of it goes into a report, whatever fails afterwards."""

    info: CheckpointInfo
    settings: Mapping[str, Setting] = field(default_factory=dict)
    request: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A checkpoint's problem with its weights in, the settings to measure it with, and what the optimizer remembers."""

    problem: Problem
    settings: MeasureSettings
    buffers: Buffers | None = None
    adam: bool = False


def prepare(
    path: str | Path,
    known: Known,
    clock: Clock,
    *,
    overrides: Mapping[str, Any] | None,
    sources: Mapping[str, str] | None,
    config: str | None,
    cwd: Path | None,
    cross_check: bool = False,
    warm_start: str | None = None,
    unsaid_rho: float | None = None,
    verify: Verify | None = None,
    velocity: bool = False,
    workshop: Workshop | None = None,
) -> Prepared:
    """Opens, resolves and builds; what is learnt on the way is written into `known`. Arguments as for `inspect`.

    `unsaid_rho` stands in, unshown, where nobody says a rho. `velocity`: the momentum buffers are
    read as well, as they are with `verify`. `workshop`: where the problem is kept for the next checkpoint.

    Raises:
        SamdiagError: of any of the three.
    """
    from samdiag.formats import open_checkpoint
    from samdiag.formats.checkpoint import EMA_BESIDE, EMA_USED
    from samdiag.spec.build import build
    from samdiag.spec.discover import resolve

    with clock("open"):
        checkpoint = open_checkpoint(path)
        known.info = info_of(checkpoint)
        known.warnings = checkpoint.notes
        resolution = resolve(
            overrides=overrides or {},
            sources=sources,
            config=config,
            checkpoint=checkpoint,
            cwd=cwd or Path.cwd(),
        )
        known.settings = resolution.settings
        known.request = request_of(resolution.settings, cross_check=cross_check, warm_start=warm_start, verify=verify)
        known.warnings = (*known.warnings, *resolution.warnings)
        said = resolution.settings
        if unsaid_rho is not None and "sam.rho" not in said:
            said = {**said, "sam.rho": Setting(value=unsaid_rho, source="stand-in", trust=Trust.DEFAULT)}
        settings = measure_settings(said, cross_check=cross_check, warm_start=warm_start)
    with clock("build"):
        built = build(resolution, checkpoint, workshop)
        known.warnings = (*known.warnings, *built.notes)
    raw = said["weights"].value == "raw" if "weights" in said else True
    if not raw:
        known.warnings = tuple(EMA_USED if note == EMA_BESIDE else note for note in known.warnings)
    buffers = (
        checkpoint.velocity() if (velocity or verify is not None) and raw else None
    )  # of the averaged weights there are none
    return Prepared(problem=built.problem, settings=settings, buffers=buffers, adam=checkpoint.adam)


def info_of(checkpoint: Checkpoint) -> CheckpointInfo:
    """What a report says a checkpoint is, before anything of it was measured."""
    from samdiag.formats.steps import step_in_name

    return CheckpointInfo(
        path=str(checkpoint.path),
        format=checkpoint.format,
        fingerprint=checkpoint.fingerprint,
        step=step_in_name(checkpoint.path) if checkpoint.step is None else checkpoint.step,
    )


def request_of(
    settings: Mapping[str, Setting], *, cross_check: bool, warm_start: str | None, verify: Verify | None
) -> str:
    """ "sha256:…" of everything that decides what a diagnosis of given weights is: settings and what else is asked.

    Not of gates, which only look at it, nor of who said a setting.
    """
    asked = {name: setting.value for name, setting in settings.items() if not name.startswith("gate.")}
    more = {"cross_check": cross_check, "warm_start": warm_start, "verify": verify}
    text = json.dumps(jsonable({**asked, **more}), sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells one diagnosis from another, known before anything is measured.

    Attributes:
        fingerprint: of the checkpoint.
        request: as in `Diagnosis.request`.
    """

    fingerprint: str
    request: str


def identify(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None,
    sources: Mapping[str, str] | None,
    config: str | None,
    cwd: Path | None,
    cross_check: bool = False,
    warm_start: str | None = None,
    verify: Verify | None = None,
) -> Identity:
    """What the diagnosis of a checkpoint would be known by; it is opened, and nothing is built or measured.

    Raises:
        SamdiagError: it cannot be opened, or its settings cannot be resolved.
    """
    from samdiag.formats import open_checkpoint
    from samdiag.spec.discover import resolve

    checkpoint = open_checkpoint(path)
    found = resolve(
        overrides=overrides or {}, sources=sources, config=config, checkpoint=checkpoint, cwd=cwd or Path.cwd()
    )
    request = request_of(found.settings, cross_check=cross_check, warm_start=warm_start, verify=verify)
    return Identity(fingerprint=checkpoint.fingerprint, request=request)


def measure_settings(
    settings: Mapping[str, Setting], *, cross_check: bool = False, warm_start: str | None = None
) -> MeasureSettings:
    """The resolved settings as measurement settings.

    Raises:
        UsageError: rho is missing, or a value is not allowed.
    """
    from samdiag.measure.settings import MeasureSettings
    from samdiag.registry import VARIANTS

    values = {
        name.removeprefix("sam.").removeprefix("measure."): setting.value
        for name, setting in settings.items()
        if name.startswith(("sam.", "measure."))
    }
    known = set(MeasureSettings.__dataclass_fields__)
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"unknown setting {unknown[0]!r}", f"one of: {', '.join(sorted(known))}")
    if "rho" not in values:
        raise UsageError(
            "rho is not known: no flag, project file, stamp or optimizer state says it",
            "give the radius that SAM was trained with: --rho 0.05",
        )
    rho = values["rho"]
    if isinstance(rho, bool) or not isinstance(rho, (int, float)) or not math.isfinite(rho) or rho <= 0:
        raise UsageError(
            f"rho = {rho!r} is not a positive number", "give the radius that SAM was trained with: --rho 0.05"
        )
    if values.get("variant", "sam") not in VARIANTS:
        raise UsageError(f"unknown variant {values['variant']!r}", f"one of: {', '.join(VARIANTS)}")
    return MeasureSettings(**{**values, "rho": float(rho)}, cross_check=cross_check, warm_start=warm_start)


class Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._start = 0.0

    def __call__(self, stage: str) -> Clock:
        self._stage = stage
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._stage] = time.perf_counter() - self._start
