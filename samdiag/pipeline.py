"""open → resolve → build → measure → judge → advise (→ try → judge again): the order, here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.failing import environment, failed
from samdiag.patience import Patience
from samdiag.preparing import Clock, Known, measure_settings, prepare
from samdiag.probes import Verify
from samdiag.types import CheckpointInfo, Diagnosis, Problem, Setting, Trust
from samdiag.verifying import Trying, judged, try_out

if TYPE_CHECKING:
    from samdiag.measure.settings import MeasureSettings
    from samdiag.spec.workshop import Workshop

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
    workshop: Workshop | None = None,
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
        workshop: where model and data are kept for the next checkpoint.

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
            verify=verify,
            workshop=workshop,
        )
        trying = None
        if verify is not None:
            trying = Trying(verify=verify, buffers=ready.buffers, adam=ready.adam, announce=announce)
        return _examine(ready.problem, ready.settings, known, clock, progress, patience, trying)
    except Exception as error:
        return failed(
            error,
            checkpoint=known.info,
            settings=known.settings,
            warnings=known.warnings,
            timings=clock.seconds,
            request=known.request,
        )


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
    known = Known(info=CheckpointInfo(path=""), settings=settings)
    return _examine(problem, chosen, known, Clock(), progress, trying=trying)


def _examine(
    problem: Problem,
    chosen: MeasureSettings,
    known: Known,
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
    probe, warnings = None, known.warnings
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
    return Diagnosis(
        checkpoint=replace(known.info, num_params=measurements.num_params) if known.info.path else None,
        settings=known.settings,
        measurements=measurements,
        verdict=findings[0].verdict,
        findings=findings,
        prescription=prescription,
        warnings=warnings,
        probe=probe,
        timings=clock.seconds,
        environment=environment(chosen.device),
        samdiag_version=__version__,
        request=known.request,
    )


def _check_values(said: Mapping[str, Any]) -> None:
    """Nothing, or UsageError where a value is not allowed: the same rules as for files and the command line."""
    from samdiag.spec.parsing import nest, parse

    known = {name: value for name, value in said.items() if value is not None}
    parse(nest(known, "argument"), "argument")
