"""The dynamics probe: short continuations of the run from the checkpoint, with the real update and in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from samdiag.curvature.memory import free_memory
from samdiag.curvature.restoring import batch_statistics
from samdiag.errors import UsageError
from samdiag.measure.continuations import Continuation, continuations, default_steps
from samdiag.measure.dynamics import Pool, Walk
from samdiag.measure.measuring import Measured
from samdiag.measure.probe_session import Announce, Runner, Session
from samdiag.measure.probe_summary import summarise
from samdiag.patience import Patience
from samdiag.probes import Probe, Verify
from samdiag.remedies import Prescription

MEMORY_SHARE = 0.5  # of what is free, for all runs' points and velocities: a step needs room for its own


def run_probe(
    found: Measured,
    prescription: Prescription | None,
    verify: Verify,
    *,
    velocity: Tensor | None = None,
    announce: Announce | None = None,
    patience: Patience | None = None,
    leaving: bool = True,
    notes: tuple[str, ...] = (),
) -> Probe:
    """SAM as configured, SGD, and SAM as prescribed, each run from the checkpoint with the same data orders.

    All runs advance together, so that they have made the same number of steps whenever the budget ends. Escapes are
    looked for at every step; losses and gradients over all samples on an even grid of steps, since it is the trend of
    the last third that is judged. BatchNorm uses the batch's own statistics throughout, as in training. The objective
    is left at the checkpoint.

    Args:
        found: the measurement, while its model is borrowed.
        prescription: what was recommended; None, or nothing new in it: two runs.
        verify: how far and how long.
        velocity: [num_params] momentum buffer of the checkpoint; None: the first step fills it.
        announce: told in one line what will be run and what it costs.
        patience: an interruption ends the probe with what it has.
        leaving: whether it is the leaving of a saddle that is to be seen; else the loss.
        notes: put before the probe's own.

    Raises:
        UsageError: the learning rate is not known.
    """
    check_lr(found.measurements.lr)
    began = time.perf_counter()
    objective, here = found.base.ready.objective, found.base.here.x
    settings = continuations(found, prescription)
    session = Session(
        base=found.base,
        began=began,
        budget=verify.seconds,
        asked=verify.steps or default_steps(found.measurements, settings, leaving=leaving),
        runners=_runners(found, settings, verify.replicates, velocity),
        settings=settings,
        patience=patience or Patience(),
    )
    try:
        with batch_statistics(objective.model), session.patience.listening():
            session.go(announce or (lambda _line: None))
    finally:
        objective.move_to(here)
    return Probe(
        runs=tuple(summarise(setting, session.of(setting)) for setting in settings),
        steps=session.done,
        asked_steps=session.asked,
        replicates=max(len(session.of(setting)) for setting in settings),
        num_samples=objective.num_samples,
        momentum_from_file=velocity is not None,
        seconds=time.perf_counter() - began,
        budget=verify.seconds,
        notes=(*notes, *_remarks(found, session, verify)),
    )


def check_lr(lr: float | None) -> None:
    """Nothing, or UsageError where the learning rate is not known: without it there is no update to run."""
    if lr is None:
        raise UsageError("the learning rate is not known, so that no step can be tried", "give it: --lr 0.1")


def _runners(
    found: Measured, settings: Sequence[Continuation], replicates: int, velocity: Tensor | None
) -> list[Runner]:
    """Every setting's replicates; the k-th of each has the same data order."""
    objective, here = found.base.ready.objective, found.base.here
    replicates = affordable_replicates(
        replicates, settings=len(settings), num_params=objective.num_params, free=free_memory(objective.device)
    )
    pool, made = Pool.of(objective, independent=is_part(found)), []
    velocity = None if velocity is None else velocity.to(objective.device)
    for setting in settings:
        for k in range(replicates if setting.is_random(None if pool.independent else objective.num_samples) else 1):
            walk = Walk(objective, here.x, seed=found.base.settings.seed + k, velocity=velocity, pool=pool)
            made.append(Runner(setting=setting, walk=walk, start=here.x, is_first=k == 0))
    return made


def affordable_replicates(wanted: int, *, settings: int, num_params: int, free: int) -> int:
    """As many of the wanted replicates as there is memory for, at least one: a point and a velocity of each run."""
    one = 2 * 8 * num_params * settings  # float64
    return max(1, min(wanted, int(MEMORY_SHARE * free) // max(one, 1)))


def is_part(found: Measured) -> bool:
    """Whether the analysed samples are a part of the training set only, or of an unknown one."""
    samples, population = found.base.ready.objective.num_samples, found.base.ready.population
    return population is None or samples < population


def _remarks(found: Measured, session: Session, verify: Verify) -> tuple[str, ...]:
    """Where the batches come from, if not from passes over the training set, and what memory left out."""
    randoms = [setting for setting in session.settings if setting.largest_batch is not None]
    samples, population = found.base.ready.objective.num_samples, found.base.ready.population
    remarks = []
    if randoms and is_part(found):
        whole = "" if population is None else f" of {population}"
        remarks.append(f"batches are drawn with replacement from the {samples} analysed samples{whole}")
    run = max((len(session.of(setting)) for setting in randoms), default=verify.replicates)
    if 1 < run < verify.replicates or (run == 1 < verify.replicates and is_part(found)):
        remarks.append(f"{run} of {verify.replicates} data orders were run: memory allows no more")
    return tuple(remarks)
