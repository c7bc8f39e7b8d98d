"""What the probe runs: SAM as configured, SGD, SAM as prescribed, each with the exit that theory expects of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from samdiag.measure.dynamics import Update
from samdiag.measure.measuring import Measured
from samdiag.probes import AS_CONFIGURED, PRESCRIBED, SGD
from samdiag.remedies import Phase, Prescription
from samdiag.theory.diffusion import escape_steps, step_noise
from samdiag.theory.estimators import batch_gradient_norm
from samdiag.theory.saddle import shifted_eigenvalue
from samdiag.types import Direction, Measurements

LONGEST = 1000  # steps by default: the horizon over which the verdicts weigh progress and escape
SHORTEST = 100  # steps by default: what a run of hundreds of steps does in fewer is mostly its start
ROOM = 3.0  # times the predicted exit: the loss falls when the exit is some e-foldings behind, and exits scatter
UNPREDICTED = 300  # steps where no exit is predicted: most runs that leave do so in hundreds (theory E)
LATEST = 100_000  # steps after which an escape is not waited for, as in the prescription


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """One setting to be run from the checkpoint.

    Attributes:
        name: as in `ProbedRun`.
        update: as configured (SGD: without the ascent).
        phases: what is changed, in the order of time; empty: nothing.
        schedule: in words, where the setting changes on the way.
        direction: [num_params] the most negative direction q, a unit vector; None without one.
        start_distance: q·g/lambda_min, where the checkpoint lies beside the ridge.
        exit_distance, expected_steps: as in `ProbedRun`.
    """

    name: str
    update: Update
    phases: tuple[Phase, ...] = ()
    schedule: str | None = None
    direction: Tensor | None = None
    start_distance: float = 0.0
    exit_distance: float | None = None
    expected_steps: float | None = None

    def update_at(self, step: int) -> Update:
        """The update that is made at `step` = 0, 1, …"""
        return self.update.scheduled(self.phases, step) if self.phases else self.update

    @property
    def largest_batch(self) -> int | None:
        """The largest batch of any phase; None where all are full."""
        sizes = [self.update.in_phase(phase, 0).batch_size for phase in self.phases] or [self.update.batch_size]
        return max((size for size in sizes if size is not None), default=None)

    def is_random(self, num_samples: int | None) -> bool:
        """Whether some phase draws its batches: full ones are the same each time, and so are those of `num_samples`
        where these are passed over.
        """
        sizes = [self.update.in_phase(phase, 0).batch_size for phase in self.phases] or [self.update.batch_size]
        return any(size is not None and (num_samples is None or size < num_samples) for size in sizes)


def continuations(found: Measured, prescription: Prescription | None) -> tuple[Continuation, ...]:
    """The settings to run, as configured first; SAM as prescribed only where something new is prescribed.

    The momentum stays where it is for SGD: it is the run without its ascent.
    """
    m, base = found.measurements, found.base
    batch = base.ready.batch_size
    update = Update.configured(base.settings, found.near.rule, batch)
    runs = [
        Continuation(name=AS_CONFIGURED, update=update),
        Continuation(name=SGD, update=replace(update, rule=None, micro_batch=None)),
    ]
    if prescription is not None:
        phases = prescription.phases(rho=m.rho, micro_batch=m.micro_batch)
        if phases:
            words = in_words(phases)
            changing = ", then " in words or phases[0].rho_end is not None
            # of plain steps the exit is worked out below: a schedule's own prediction is of what comes after them
            steps = prescription.escape_steps if phases[0].rho > 0 else None
            runs.append(
                Continuation(
                    name=PRESCRIBED,
                    update=update,
                    phases=phases,
                    schedule=words if changing else None,
                    expected_steps=steps,
                )
            )
    return tuple(_with_exit(found, run) for run in runs)


def in_words(phases: Sequence[Phase]) -> str:
    """The phases on one line: "rho 0 for 137 steps, then rho 0.35"; equal neighbours are said once."""
    distinct: list[Phase] = []
    for phase in phases:
        if distinct and phase.rho_end is None and replace(distinct[-1], steps=phase.steps) == phase:
            distinct[-1] = replace(phase, steps=_sum(distinct[-1].steps, phase.steps))
        else:
            distinct.append(phase)
    return ", then ".join(_phase_in_words(phase) for phase in distinct)


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def _phase_in_words(phase: Phase) -> str:
    words = f"rho {phase.rho:.4g}"
    if phase.rho_end is not None:
        words += f" to {phase.rho_end:.4g}"
    others = {"lr": phase.lr, "momentum": phase.momentum, "batch": phase.batch_size, "micro-batch": phase.micro_batch}
    words += "".join(f", {name} {value:.4g}" for name, value in others.items() if value is not None)
    return words if phase.steps is None else f"{words} for {phase.steps} steps"


def default_steps(m: Measurements, runs: Sequence[Continuation], *, leaving: bool = True) -> int:
    """Enough steps to see what is predicted of SGD and of the prescription, within SHORTEST and LONGEST.

    Where no exit is predicted in that time, or none is asked about (`leaving` False), those in which plain steps at
    their present pace take off a fifth of the loss.
    """
    known = [run.expected_steps for run in runs if run.name != AS_CONFIGURED and run.expected_steps is not None]
    expected = [steps for steps in known if leaving and steps <= LONGEST]
    phases = [sum(phase.steps or 0 for phase in run.phases) for run in runs]
    steps = max([ROOM * steps for steps in expected] + [1.5 * steps for steps in phases], default=0.0)
    if not steps:
        steps = _by_pace(m)
    return math.ceil(max(SHORTEST, min(LONGEST, steps)))


def _by_pace(m: Measurements) -> float:
    if m.lookahead_loss_sgd is None or m.loss_lower_bound is None or m.loss.value is None:
        return UNPREDICTED
    pace = (m.loss.value - m.lookahead_loss_sgd) / m.lookahead_steps
    return 0.2 * (m.loss.value - m.loss_lower_bound) / pace if pace > 0 else UNPREDICTED


def _with_exit(found: Measured, run: Continuation) -> Continuation:
    """The run with the exit distance and the steps that theory D4 predicts for it; unchanged without a direction."""
    m = found.measurements
    bottom = m.bottom_directions[0] if m.bottom_directions else None
    if bottom is None or not bottom.eigenvalue.high + m.weight_decay < 0:
        return run
    lam = bottom.eigenvalue.value or 0.0
    batch = run.update_at(0).batch_size
    distance = batch_gradient(m, batch) / abs(lam)
    radius = _radius(m, bottom, run)
    if _captures(m, lam, radius) and run.name == AS_CONFIGURED and m.variant != "usam":
        reach = radius * batch_gradient(m, batch)
        distance = max(distance, reach if math.isfinite(reach) else m.rho)
    if not 0 < distance < math.inf:
        return run
    expected = run.expected_steps
    if expected is None and (not run.phases or run.phases[0].rho <= 0):
        expected = _expected_steps(m, bottom, run, radius=radius, distance=distance)
    vector = found.curved.spectrum.bottom_vectors[0].double()
    return replace(
        run,
        direction=vector / vector.norm(),
        start_distance=bottom.offset / lam,
        exit_distance=distance,
        expected_steps=expected,
    )


def batch_gradient(m: Measurements, batch_size: int | None) -> float:
    """G of batches of this size at the measured point."""
    return batch_gradient_norm(m.grad_norm.value or 0.0, m.noise_trace.value or 0.0, batch_size, m.population)


def _radius(m: Measurements, bottom: Direction, run: Continuation) -> float:
    return bottom.effective_radius if run.name == AS_CONFIGURED else 0.0


def _captures(m: Measurements, lam: float, radius: float) -> bool:
    return math.isinf(radius) or shifted_eigenvalue(lam, radius, m.weight_decay) >= 0


def _expected_steps(
    m: Measurements, bottom: Direction, run: Continuation, *, radius: float, distance: float
) -> float | None:
    """N_escape of plain steps or of the present setting; None where it never leaves, is outside already, or does not
    last as long.

    Source: theory D4.
    """
    lam, update = bottom.eigenvalue.value or 0.0, run.update_at(0)
    batch = update.batch_size
    if math.isinf(radius):
        return None
    noise = step_noise(bottom.noise, batch, radius, lam) if batch is not None and bottom.noise is not None else 0.0
    steps = escape_steps(
        offset=abs(bottom.offset / lam),
        noise=noise,
        exit_distance=distance,
        mu=shifted_eigenvalue(lam, radius, m.weight_decay),
        lr=update.lr * (1.0 - update.dampening),
        momentum=update.momentum,
        nesterov=update.nesterov,
        max_steps=LATEST,
    )
    lasts = run.phases[0].steps if run.phases else None
    return float(steps) if steps and (lasts is None or steps <= lasts) else None
