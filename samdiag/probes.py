"""What short continuations of the run showed: the dynamics probe's values. Plain and frozen, without torch."""

from __future__ import annotations

from dataclasses import dataclass

AS_CONFIGURED = "as configured"
SGD = "SGD"
PRESCRIBED = "as prescribed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePoint:
    """One moment of a continuation: means over the replicates, each with the standard error of that mean.

    Attributes:
        step: updates since the checkpoint; 0 is the checkpoint.
        loss, loss_error: over all analysed samples.
        grad_norm: |g| over all analysed samples.
        gradient_ratio, gradient_cosine: of the shifted gradient, on the variant and rho of this run; None for SGD.
        displacement: |(x − x0)·q| along the most negative direction; None without one.
    """

    step: int
    loss: float
    loss_error: float
    grad_norm: float
    gradient_ratio: float | None
    gradient_cosine: float | None
    displacement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedRun:
    """One setting, run from the checkpoint.

    Attributes:
        name: AS_CONFIGURED, SGD or PRESCRIBED.
        rho, lr, momentum, batch_size, micro_batch: at its first step; batch_size None: full batch.
        points: in the order of time, the checkpoint first.
        gain: how far the loss fell from the checkpoint to the end (negative: it rose), the mean over replicates.
        gain_error: its standard error, the replicates' scatter and the late swings of the loss together.
        escapes: for each replicate the step at which |(x − x0)·q| (from the top) first passed the exit distance;
            None: not within the steps. Empty without a negative direction.
        diverged: replicates whose loss became infinite or NaN.
    """

    name: str
    rho: float
    lr: float
    momentum: float
    batch_size: int | None
    micro_batch: int | None
    points: tuple[ProbePoint, ...]
    gain: float
    gain_error: float
    escapes: tuple[int | None, ...]
    diverged: int = 0


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
        replicates: per setting; 1 where nothing is random.
        num_samples: analysed samples that the batches were drawn from.
        exit_distance: |(x − x0)·q| at which the saddle counts as left; None without a negative direction.
        momentum_from_file: whether the momentum buffers came from the checkpoint; else they start at zero.
        seconds, budget: what it cost and was allowed to; budget None: no limit.
        comparisons: predicted against observed.
    """

    runs: tuple[ProbedRun, ...]
    steps: int
    asked_steps: int
    replicates: int
    num_samples: int
    exit_distance: float | None
    momentum_from_file: bool
    seconds: float
    budget: float | None
    comparisons: tuple[Comparison, ...] = ()

    def run(self, name: str) -> ProbedRun | None:
        """The run of that name."""
        return next((run for run in self.runs if run.name == name), None)
