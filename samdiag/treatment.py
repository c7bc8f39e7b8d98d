"""What a treatment did: its rounds, what it ended with, and what it wrote. Plain and frozen, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from samdiag.remedies import Phase
from samdiag.types import FORMAT_VERSION, CheckpointInfo, Estimate, Failure

if TYPE_CHECKING:
    from torch import Tensor

HARMLESS = ("descending", "saddle-escaping", "minimum")


class Outcome(StrEnum):
    """How a treatment ended."""

    NOTHING = "nothing to treat"
    RESCUED = "rescued"
    NOT_RESCUED = "not rescued"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The training settings in force.

    Attributes:
        rho: 0: plain gradient steps.
        batch_size: None: full batch.
        micro_batch: samples behind one ascent gradient; None: the batch.
    """

    rho: float
    lr: float
    momentum: float
    batch_size: int | None
    micro_batch: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The diagnosis at one point, reduced to what a log says."""

    verdict: str
    confidence: str
    message: str
    loss: float | None
    grad_norm: float | None
    lambda_min: Estimate
    lambda_max: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One diagnosis and what was done about it.

    Attributes:
        number: 1, 2, …
        before: the diagnosis that was treated.
        kind: of the schedule that was applied ("constant", "sgd-then-sam", …).
        start: the settings before it.
        phases: as they were run, every one with its steps.
        steps: updates that were made; fewer than the phases have where the round was cut short.
        loss_after: after them, over all samples that the steps were drawn from; None where nothing is left of them.
        verdict_after: None where the round did not get as far as a diagnosis.
        diverged: the steps were undone.
        note: what else happened; empty: nothing.
        seconds: steps and diagnosis together.
    """

    number: int
    before: State
    kind: str
    start: Recipe
    phases: tuple[Phase, ...]
    steps: int
    loss_after: float | None
    verdict_after: str | None
    seconds: float
    diverged: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files that a treatment left behind; None: not written.

    Attributes:
        stamped: whether the checkpoint says its model and data itself.
    """

    checkpoint: str | None = None
    stamped: bool = False
    optimizer: str | None = None
    log: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What was done to a checkpoint, and how it ended.

    Attributes:
        outcome, reason: how it ended and why, in a sentence.
        rounds: in their order.
        before, after: the diagnosis at the checkpoint and at the weights that are kept; None where there is none.
        recipe: the settings that were applied last to the weights that are kept; None before the first diagnosis.
        improved: whether the weights that are kept are other than the checkpoint's.
        safe: theory's bounds on rho at the weights that are kept, (constraint, largest rho), tightest first.
        num_samples: that the steps were drawn from; None where none were made.
        velocity: [num_params] momentum buffer at the weights that are kept; None before the first step.
        failure: what ended it, where that was an error.
    """

    outcome: Outcome
    reason: str
    rounds: tuple[Round, ...] = ()
    before: State | None = None
    after: State | None = None
    recipe: Recipe | None = None
    improved: bool = False
    safe: tuple[tuple[str, float], ...] = ()
    num_samples: int | None = None
    notes: tuple[str, ...] = ()
    velocity: Tensor | None = field(default=None, compare=False, repr=False)
    checkpoint: CheckpointInfo | None = None
    written: Written = field(default_factory=Written)
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    samdiag_version: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def rescued(self) -> bool:
        """Whether the verdict is harmless now, or was from the start."""
        return self.outcome in (Outcome.RESCUED, Outcome.NOTHING)

    @property
    def steps(self) -> int:
        """Updates made in all rounds."""
        return sum(entry.steps for entry in self.rounds)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object without the momentum buffer."""
        from dataclasses import replace

        from samdiag.encoding import as_object

        return {k: v for k, v in as_object(replace(self, velocity=None)).items() if k != "velocity"}
