"""open → resolve → build → measure → judge → advise (→ try → judge again): the order, here and nowhere else."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import SamdiagError, UsageError
from samdiag.patience import Patience
from samdiag.probes import Verify
from samdiag.types import CheckpointInfo, Diagnosis, Failure, Problem, Setting, Trust
from samdiag.user_errors import MEMORY_TODO, is_out_of_memory
from samdiag.verifying import Trying, judged, try_out

if TYPE_CHECKING:
    from samdiag.formats.momentum import Buffers
    from samdiag.measure.settings import MeasureSettings

Progress = Callable[[str, int], None]


def inspect(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    config: str | None = None,
    cwd: Path | None = None,
    cross_check: bool = False,
    warm_start: str | None = None,
    verify: Verify | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    patience: Patience | None = None,
) -> Diagnosis:
    """The diagnosis of one checkpoint file; an expected failure is part of it, never an exception.

    Args:
        path: the checkpoint.
        overrides: what the command line says, by dotted name (`sam.rho`); None values mean "not said".
        sources: who said an override, where it was not the command line itself.
        config: a TOML file or inline TOML.
        cwd: where the search for a project file starts; the working directory by default.
        cross_check: also ask PyHessian.
        warm_start: "subsample", or a file of eigenvectors to start from and to replace: only the caller may name one.
        verify: also run short continuations of the training from the checkpoint, in memory, and hold the verdict and
            the prescription against what they show; None: do not.
        progress: called with what is being done and the number of products so far.
        announce: told in one line what `verify` is about to run and what it costs.
        patience: ends the spectrum, or the continuations, early with the best answer so far.

    Raises:
        KeyboardInterrupt: passed on.
    """
    clock = Clock()
    known = Known(info=CheckpointInfo(path=str(path)))
    try:
        ready = prepare(
            path,
            known,
            clock,
            overrides=overrides,
            sources=sources,
            config=config,
            cwd=cwd,
            cross_check=cross_check,
            warm_start=warm_start,
            velocity=verify is not None,
        )
        trying = None
        if verify is not None:
            trying = Trying(verify=verify, buffers=ready.buffers, adam=ready.adam, announce=announce)
        return _examine(
            ready.problem, ready.settings, known.info, known.settings, known.warnings, clock, progress, patience, trying
        )
    except Exception as error:
        return failed(
            error, checkpoint=known.info, settings=known.settings, warnings=known.warnings, timings=clock.seconds
        )


@dataclass(slots=True)
class Known:
    """What is known about a checkpoint so far: all of it goes into a report, whatever fails afterwards."""

    info: CheckpointInfo
    settings: Mapping[str, Setting] = field(default_factory=dict)
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
    velocity: bool = False,
) -> Prepared:
    """Opens, resolves and builds; what is learnt on the way is written into `known`. Arguments as for `inspect`.

    `unsaid_rho` stands in, unshown, where nobody says a rho. `velocity`: also reads the momentum buffers.

    Raises:
        SamdiagError: of any of the three.
    """
    from samdiag.formats import open_checkpoint
    from samdiag.formats.checkpoint import EMA_BESIDE, EMA_USED
    from samdiag.spec.build import build
    from samdiag.spec.discover import resolve

    with clock("open"):
        checkpoint = open_checkpoint(path)
        known.info = CheckpointInfo(path=str(path), format=checkpoint.format, fingerprint=checkpoint.fingerprint)
        known.warnings = checkpoint.notes
        resolution = resolve(
            overrides=overrides or {},
            sources=sources,
            config=config,
            checkpoint=checkpoint,
            cwd=cwd or Path.cwd(),
        )
        known.settings = resolution.settings
        known.warnings = (*known.warnings, *resolution.warnings)
        said = resolution.settings
        if unsaid_rho is not None and "sam.rho" not in said:
            said = {**said, "sam.rho": Setting(value=unsaid_rho, source="stand-in", trust=Trust.DEFAULT)}
        settings = measure_settings(said, cross_check=cross_check, warm_start=warm_start)
    with clock("build"):
        built = build(resolution, checkpoint)
        known.warnings = (*known.warnings, *built.notes)
    raw = said["weights"].value == "raw" if "weights" in said else True
    if not raw:
        known.warnings = tuple(EMA_USED if note == EMA_BESIDE else note for note in known.warnings)
    buffers = checkpoint.velocity() if velocity and raw else None  # of the averaged weights there are none
    return Prepared(problem=built.problem, settings=settings, buffers=buffers, adam=checkpoint.adam)


def diagnose(
    problem: Problem,
    *,
    rho: float,
    variant: str = "sam",
    lr: float | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    batch_size: int | None = None,
    nesterov: bool = False,
    dampening: float = 0.0,
    micro_batch: int | None = None,
    weight_decay_in: str = "update",
    alpha: float | None = None,
    eta_a: float | None = None,
    progress: Progress | None = None,
    cross_check: bool = False,
    warm_start: str | None = None,
    verify: Verify | None = None,
    announce: Callable[[str], None] | None = None,
    **measuring: Any,
) -> Diagnosis:
    """The diagnosis of a model at its present weights; the model comes back exactly as it was.

    Args:
        problem: model, loss and batches.
        rho, variant, lr, momentum, weight_decay, batch_size: the training settings to judge; lr and batch_size may be
            unknown.
        nesterov, dampening: of the momentum, as in torch.optim.SGD.
        micro_batch: samples behind one ascent gradient (m-SAM); None: the whole batch.
        weight_decay_in: "update", as optimisers apply it, or "objective": part of the loss, seen by the ascent too.
        alpha: gsam's. eta_a: asam-samsung's.
        progress: called with what is being done and the number of products so far.
        cross_check: also ask PyHessian.
        warm_start: "subsample", or a file of eigenvectors to start from and to replace.
        verify, announce: as for `inspect`; the momentum starts with the first step's gradient.
        **measuring: `samples`, `seed`, `device`, `dtype`, `tol`, `num_eigenvalues`, `max_products`, `mode`, `jacobian`,
            `until`, `time_limit`, `products`, `memory`, `block`; see `MeasureSettings`.

    Raises:
        UsageError: a setting or the problem is not usable.
        CannotDecide: the point cannot be examined (NaN, out of memory, not deterministic).
    """
    said = {
        "sam.rho": rho,
        "sam.variant": variant,
        "sam.lr": lr,
        "sam.momentum": momentum,
        "sam.weight_decay": weight_decay,
        "sam.batch_size": batch_size,
        "sam.nesterov": nesterov,
        "sam.dampening": dampening,
        "sam.micro_batch": micro_batch,
        "sam.weight_decay_in": weight_decay_in,
        "sam.alpha": alpha,
        "sam.eta_a": eta_a,
        **{f"measure.{name}": value for name, value in measuring.items()},
    }
    settings = {
        name: Setting(value=value, source="argument", trust=Trust.CLI)
        for name, value in said.items()
        if value is not None
    }
    chosen = measure_settings(settings, cross_check=cross_check, warm_start=warm_start)
    _check_values(said)
    trying = Trying(verify=verify, announce=announce) if verify is not None else None
    return _examine(problem, chosen, None, settings, (), Clock(), progress, trying=trying)


def _examine(
    problem: Problem,
    chosen: MeasureSettings,
    info: CheckpointInfo | None,
    settings: Mapping[str, Setting],
    warnings: tuple[str, ...],
    clock: Clock,
    progress: Progress | None,
    patience: Patience | None = None,
    trying: Trying | None = None,
) -> Diagnosis:
    from samdiag import __version__
    from samdiag.advice import prescribe
    from samdiag.measure.measuring import measuring
    from samdiag.measure.probe import check_lr

    if trying is not None:
        check_lr(chosen.lr)
    probe = None
    with ExitStack() as borrowed:
        with clock("measure"):
            found = borrowed.enter_context(measuring(problem, chosen, progress, patience))
        with clock("judge"):
            measurements, findings = judged(found)
            prescription = prescribe(measurements, findings)
        if trying is not None and not (patience and patience.interrupted):
            with clock("probe"):
                now = replace(found, measurements=measurements)
                probe, findings, remarks = try_out(now, findings, prescription, trying, progress, patience)
            warnings = (*warnings, *remarks)
            prescription = prescribe(measurements, findings)
    if info is not None:
        info = CheckpointInfo(
            path=info.path, format=info.format, fingerprint=info.fingerprint, num_params=measurements.num_params
        )
    return Diagnosis(
        checkpoint=info,
        settings=settings,
        measurements=measurements,
        verdict=findings[0].verdict,
        findings=findings,
        prescription=prescription,
        warnings=warnings,
        probe=probe,
        timings=clock.seconds,
        environment=environment(chosen.device),
        samdiag_version=__version__,
    )


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


def _check_values(said: Mapping[str, Any]) -> None:
    """Nothing, or UsageError where a value is not allowed: the same rules as for files and the command line."""
    from samdiag.spec.parsing import nest, parse

    known = {name: value for name, value in said.items() if value is not None}
    parse(nest(known, "argument"), "argument")


def failed(
    error: Exception,
    *,
    checkpoint: CheckpointInfo | None,
    settings: Mapping[str, Setting] | None = None,
    warnings: tuple[str, ...] = (),
    timings: Mapping[str, float] | None = None,
) -> Diagnosis:
    """A diagnosis that says why there is none; an unexpected exception becomes an internal error with a request to
    report it.
    """
    from samdiag import __version__

    return Diagnosis(
        checkpoint=checkpoint,
        settings=settings or {},
        measurements=None,
        verdict="undecided",
        findings=(),
        prescription=None,
        warnings=warnings,
        failure=failure_of(error),
        timings=timings or {},
        samdiag_version=__version__,
    )


def failure_of(error: Exception) -> Failure:
    """What a report says of an exception: an expected one in its own two lines, another as an internal error."""
    if isinstance(error, SamdiagError):
        return Failure(what=error.what, todo=error.todo, exit_code=error.exit_code)
    if is_out_of_memory(error):
        return Failure(what="out of memory", todo=MEMORY_TODO, exit_code=3)
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else "?"
    text = " ".join(str(error).split())[:300]
    return Failure(
        what=f"internal error: {type(error).__name__} at {place}: {text}",
        todo="this is a bug in samdiag: please report it with this line and the command",
        exit_code=3,
    )


def environment(device: str) -> dict[str, str]:
    """What the numbers were made with."""
    import torch

    from samdiag.measure.opening import choose_device

    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(chosen),
        "device_name": name,
        "platform": platform.system(),
    }


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
