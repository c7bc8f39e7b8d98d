"""A prescription as phases that can be run, and the settings that a run goes on with after them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from samdiag.remedies import Phase, Prescription, Schedule
from samdiag.treatment import Recipe
from samdiag.types import Measurements

if TYPE_CHECKING:
    from samdiag.measure.settings import MeasureSettings


STEPS = 500  # rho = 0.5|g|/|lambda_min| rescued 11 of 12 stuck MNIST networks within them
ESCAPES = 2.0  # times its predicted steps that a phase lasts where these are more than STEPS allows
MOST_STEPS = 10_000  # of a phase that the user did not ask to be longer; the next round goes on from there


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Something that can be run: the phases of a prescription, and what it calls them."""

    kind: str
    phases: tuple[Phase, ...]
    predicted: float | None = None  # steps until its effect; None: not predicted


def recipe_of(settings: MeasureSettings, m: Measurements) -> Recipe:
    """The settings in force; the batch size is the one that was measured with."""
    assert settings.lr is not None
    size = settings.batch_size if settings.batch_size is not None else m.batch_size
    whole = size is None or size >= (m.population or math.inf)
    return Recipe(
        rho=settings.rho,
        lr=settings.lr,
        momentum=settings.momentum,
        batch_size=None if whole else size,
        micro_batch=settings.micro_batch,
    )


def ways_of(prescription: Prescription, settings: MeasureSettings) -> tuple[Way, ...]:
    """What a prescription says to run: its schedule, or its advice as one phase; then its alternatives."""
    schedule = prescription.schedule
    phases = prescription.phases(rho=settings.rho, micro_batch=settings.micro_batch)
    if schedule is not None:
        first: tuple[Way, ...] = (_way(schedule),)
    else:
        first = (Way(kind="constant", phases=phases, predicted=prescription.escape_steps),) if phases else ()
    return (*first, *map(_way, prescription.alternatives))


def _way(schedule: Schedule) -> Way:
    return Way(kind=schedule.kind, phases=schedule.phases, predicted=schedule.steps)


def timed(way: Way, steps: int | None) -> Way:
    """The way with every phase's steps said: `steps` where it leaves them open.

    None: STEPS, or more where the effect is predicted to take longer. No phase lasts longer than MOST_STEPS, or `steps`
    where these are more: a decay is then faster. Phases of no steps are left out.
    """
    most = max(MOST_STEPS, steps or 0)
    fixed = sum(phase.steps or 0 for phase in way.phases)
    if steps is None:
        predicted = way.predicted if way.predicted is not None and math.isfinite(way.predicted) else 0.0
        steps = max(STEPS, min(math.ceil(ESCAPES * predicted) - fixed, MOST_STEPS))
    phases = tuple(
        replace(phase, steps=steps if phase.steps is None else min(phase.steps, most)) for phase in way.phases
    )
    return replace(way, phases=tuple(phase for phase in phases if phase.steps))


def settings_after(settings: MeasureSettings, phase: Phase) -> MeasureSettings:
    """The settings that a run goes on with after a phase; after plain steps with the rho of before."""
    said = {name: getattr(settings, name) for name in ("momentum", "batch_size", "micro_batch")} | phase.changes
    micro, batch = said["micro_batch"], said["batch_size"]
    said["micro_batch"] = micro if micro is None or batch is None or micro < batch else None
    said["nesterov"] = settings.nesterov and said["momentum"] > 0
    return replace(settings, **said, rho=phase.last_rho if phase.last_rho > 0 else settings.rho)
