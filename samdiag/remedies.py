"""What to change: advice per hyper-parameter, and the schedule that carries it out. Plain and frozen, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to set one hyper-parameter to. `recommended` is None when there is no recommendation; `reason` says why."""

    current: float | None
    recommended: float | None
    interval: tuple[float, float] | None
    binding: str | None
    reason: str
    source: str


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
