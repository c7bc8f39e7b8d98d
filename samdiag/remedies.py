"""What to change: advice per hyper-parameter, and the schedule that carries it out. Plain and frozen, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to set one hyper-parameter to. `recommended` is None when there is no recommendation; `reason` says why."""

    current: float | None
    recommended: float | None
    interval: tuple[float, float] | None
    binding: str | None
    reason: str
    source: str

    @property
    def new(self) -> float | None:
        """The recommended value where it is another than the current one."""
        return None if self.recommended == self.current else self.recommended


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training under one setting; what is None stays as it was configured.

    Attributes:
        steps: updates; None: the rest of the run.
        rho: radius at its first step; 0: plain gradient steps (SGD).
        rho_end: radius at its last step, approached geometrically; None: rho throughout.
        lr, momentum, batch_size, micro_batch: as in `Measurements`.
    """

    steps: int | None
    rho: float
    rho_end: float | None = None
    lr: float | None = None
    momentum: float | None = None
    batch_size: int | None = None
    micro_batch: int | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What it changes beside rho, by name: lr, momentum, batch_size, micro_batch."""
        values = {name: getattr(self, name) for name in ("lr", "momentum", "batch_size", "micro_batch")}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def last_rho(self) -> float:
        """The radius at its last step."""
        return self.rho_at(max((self.steps or 1) - 1, 0))

    def rho_at(self, step: int) -> float:
        """The radius at update `step` = 0, 1, … of this phase; beyond its last step it stays where it ended."""
        if self.rho_end is None or self.steps is None:
            return self.rho
        if self.rho <= 0 or self.rho_end <= 0:
            return self.rho if step < self.steps - 1 else self.rho_end
        share = min(step / max(self.steps - 1, 1), 1.0)
        return float(self.rho * (self.rho_end / self.rho) ** share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A prescription as phases in the order in which they are run.

    Attributes:
        kind: "constant", "sgd-then-sam", "rho-warm-up", "rho-decay", "micro-batch" or "lower-lr".
        phases: at least one; the last one's `steps` may be None.
        effect: what it is predicted to do, with numbers.
        risk: what can go wrong with it, and what to check.
        source: paper and equation.
        steps: predicted steps until the effect; None where theory gives none.
    """

    kind: str
    phases: tuple[Phase, ...]
    effect: str
    risk: str
    source: str
    steps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prescription:
    """What to change, jointly.

    Attributes:
        rho, momentum, batch_size: each with its reason, also where nothing is recommended.
        lr: only where the learning rate has to change; None: it stays.
        escape_steps: predicted steps to leave the saddle under the recommended settings.
        schedule: the same as something that can be run; None: nothing to change, or no recommendation.
        alternatives: other ways, less good or dearer.
        missing: what would have to be known for a recommendation; empty where there is one, or none is needed.
    """

    rho: Advice
    momentum: Advice
    batch_size: Advice
    escape_steps: float | None = None
    notes: tuple[str, ...] = ()
    lr: Advice | None = None
    schedule: Schedule | None = None
    alternatives: tuple[Schedule, ...] = ()
    missing: tuple[str, ...] = ()

    def phases(self, *, rho: float, micro_batch: int | None) -> tuple[Phase, ...]:
        """What is to be run: the schedule's phases, else the advice as one phase without an end; none: nothing is new.

        Args:
            rho: of the run, where none is recommended.
            micro_batch: of the run; where it has one, it is what the advice on the batch speaks of.
        """
        if self.schedule is not None:
            return self.schedule.phases
        lr = None if self.lr is None else self.lr.new
        advised = (self.rho.new, self.momentum.new, self.batch_size.new, lr)
        if all(value is None for value in advised):
            return ()
        size = None if self.batch_size.new is None else max(int(self.batch_size.new), 1)
        phase = Phase(
            steps=None,
            rho=rho if self.rho.new is None else self.rho.new,
            lr=lr,
            momentum=self.momentum.new,
            batch_size=size if micro_batch is None else None,
            micro_batch=size if micro_batch is not None else None,
        )
        return (phase,)
