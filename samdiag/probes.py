"""What short continuations of the run showed: the dynamics probe's values. Plain and frozen, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samdiag.errors import UsageError

AS_CONFIGURED = "as configured"
SGD = "SGD"
PRESCRIBED = "as prescribed"
DEFAULT_BUDGET = 60.0  # seconds, where neither a budget nor a number of steps was asked for
REPLICATES = 3  # data orders per setting: the fewest whose scatter says something
# standard errors in a 95 % interval of a mean over so many replicates, Student's t; one replicate scatters in time only
QUANTILES = {1: 2.0, 2: 12.7, 3: 4.3, 4: 3.2, 5: 2.8, 6: 2.6}
MANY = 2.4  # for more replicates


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """What the dynamics probe is asked to do.

    Attributes:
        steps: updates of every run; None: enough to see what is predicted.
        budget: seconds that the probe may take; None: DEFAULT_BUDGET, or no limit where `steps` is given.
        replicates: data orders per setting; where nothing is random one is run.
    """

    steps: int | None = None
    budget: float | None = None
    replicates: int = REPLICATES

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps {self.steps} is no number of steps", "give 1 or more, e.g. --steps 200")
        if self.budget is not None and not self.budget > 0:
            raise UsageError(f"--budget {self.budget:g} is no time", "give seconds, or e.g. 90s, 5m, 1h")
        if self.replicates < 1:
            raise UsageError(f"{self.replicates} replicates are none", "give 1 or more, e.g. replicates=3")

    @property
    def seconds(self) -> float | None:
        """The budget that applies; None: no limit."""
        return DEFAULT_BUDGET if self.budget is None and self.steps is None else self.budget


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePoint:
    """One moment of a continuation: the loss and the displacement as means over the replicates, the gradients of the
    first one.

    Attributes:
        step: updates since the checkpoint; 0 is the checkpoint.
        loss, loss_error: over all analysed samples, and the standard error of the mean; infinite where a run diverged.
        grad_norm: |g| over all analysed samples; None where the run diverged.
        gradient_ratio, gradient_cosine: of the shifted gradient, on the variant and rho of this run; None for SGD.
        displacement: distance |q·g/lambda_min + (x − x0)·q| from the saddle's ridge along the most negative direction,
            q·g of the checkpoint; None without one.
    """

    step: int
    loss: float
    loss_error: float
    grad_norm: float | None
    gradient_ratio: float | None
    gradient_cosine: float | None
    displacement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedRun:
    """One setting, run from the checkpoint.

    Attributes:
        name: AS_CONFIGURED, SGD or PRESCRIBED.
        rho, lr, momentum, batch_size, micro_batch: at its first step; batch_size None: full batch.
        schedule: the settings in the order of time, in words; None: one setting throughout.
        replicates: how many data orders were run; 1 where nothing is random.
        points: in the order of time, the checkpoint first.
        gain: how far the loss fell from the checkpoint to the end (negative: it rose), the mean over replicates.
        gain_error: its standard error, the replicates' scatter and the late swings of the loss together.
        escapes: for each replicate the first step at which the displacement had reached `exit_distance`; None: not
            within the steps. Empty without a negative direction.
        exit_distance: displacement at which this run counts as having left: G/|lambda_min|, G the mean norm of its
            batches' gradients; for a radius that captures the edge of what it captures, rho_eff·G. None without a
            negative direction.
        expected_steps: to the exit distance by theory; None: never, or not known.
        diverged: replicates whose loss became infinite or NaN.
    """

    name: str
    rho: float
    lr: float
    momentum: float
    batch_size: int | None
    micro_batch: int | None
    replicates: int
    points: tuple[ProbePoint, ...]
    gain: float
    gain_error: float
    escapes: tuple[int | None, ...]
    exit_distance: float | None = None
    expected_steps: float | None = None
    schedule: str | None = None
    diverged: int = 0

    @property
    def gain_interval(self) -> tuple[float, float]:
        """95 % interval of `gain`."""
        reach = QUANTILES.get(self.replicates, MANY) * self.gain_error
        return self.gain - reach, self.gain + reach

    @property
    def left(self) -> int:
        """How many replicates passed the exit distance."""
        return sum(step is not None for step in self.escapes)

    @property
    def median_escape(self) -> float | None:
        """Median step of the escapes; None where half of the replicates or more stayed."""
        steps = sorted(math.inf if step is None else float(step) for step in self.escapes)
        if not steps:
            return None
        middle = (steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) / 2
        return middle if math.isfinite(middle) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A prediction beside what was seen.

    Attributes:
        what: what is predicted, e.g. "SAM as configured".
        predicted, observed: in words with numbers.
        agrees: None where the probe was too short or too noisy to say.
    """

    what: str
    predicted: str
    observed: str
    agrees: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Short continuations from the checkpoint under several settings with the same seeds.

    Attributes:
        runs: as configured first, then SGD, then as prescribed where something is prescribed.
        steps: updates that every run made.
        asked_steps: updates that were wanted; more than `steps` where the budget ended it.
        replicates: per setting, where its batches are drawn at random; a full-batch setting is run once.
        num_samples: analysed samples that the batches were drawn from.
        momentum_from_file: whether the momentum buffers came from the checkpoint; else the first step fills them.
        seconds, budget: what it cost and was allowed to; budget None: no limit.
        comparisons: predicted against observed.
        notes: what the reader should know about how it was run.
    """

    runs: tuple[ProbedRun, ...]
    steps: int
    asked_steps: int
    replicates: int
    num_samples: int
    momentum_from_file: bool
    seconds: float
    budget: float | None
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()

    def run(self, name: str) -> ProbedRun | None:
        """The run of that name."""
        return next((run for run in self.runs if run.name == name), None)
