"""A diagnosis on the way of a treatment, and what it says about how far the treatment has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from samdiag.patience import Patience
from samdiag.pipeline import Progress
from samdiag.remedies import Prescription
from samdiag.treatment import HARMLESS, State
from samdiag.types import Finding, Measurements, Problem
from samdiag.verdicts.thresholds import PROGRESS

if TYPE_CHECKING:
    from samdiag.measure.settings import MeasureSettings

NEGLIGIBLE = 0.01  # share of the loss at stake in the beginning below which SAM's own limits at a minimum do not count
# where next to nothing is left: SAM's last distance to a minimum, proportional to rho, and what cannot be told any more
AT_THE_END = ("bounce", "convergence-floor", "undecided")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A diagnosis on the way."""

    measurements: Measurements
    findings: tuple[Finding, ...]
    prescription: Prescription

    @property
    def verdict(self) -> str:
        return self.findings[0].verdict

    @property
    def state(self) -> State:
        """What a log says of it."""
        m, first = self.measurements, self.findings[0]
        return State(
            verdict=first.verdict,
            confidence=first.confidence.value,
            message=first.message,
            loss=m.loss.value,
            grad_norm=m.grad_norm.value,
            lambda_min=m.lambda_min,
            lambda_max=m.lambda_max,
        )

    @property
    def is_harmless(self) -> bool:
        """Whether nothing holds the run and, short of a minimum, SAM goes on lowering the loss."""
        from samdiag.verdicts.reading import lowers_loss

        if self.verdict not in HARMLESS:
            return False
        return self.verdict == "minimum" or lowers_loss(self.measurements) is not False

    @property
    def at_stake(self) -> float:
        """The loss that can still go, or where no bound is known the scale of its changes."""
        m = self.measurements
        loss = m.loss.value or 0.0
        if m.loss_lower_bound is not None:
            return max(loss - m.loss_lower_bound, 0.0)
        return max(abs(loss), abs(m.loss_change.value or 0.0))

    def has_risen(self, first: Examined) -> bool:
        """Whether the loss is higher than at first by more than does not count."""
        rise = (self.measurements.loss.value or 0.0) - (first.measurements.loss.value or 0.0)
        return rise > NEGLIGIBLE * first.at_stake

    def has_gone_well(self, first: Examined) -> bool:
        """Whether nothing holds the run any more, or what does costs next to nothing of what was lost at first.

        Not where the loss rose: a worse place at which nothing holds the run is no rescue. Nor is a place where nothing
        moves, with plain steps either, and the loss is what it was (a network without a live unit).
        """
        fallen = (first.measurements.loss.value or 0.0) - (self.measurements.loss.value or 0.0)
        if self.has_risen(first) or (self.verdict == "minimum" and fallen < PROGRESS * first.at_stake):
            return False
        bounded = self.measurements.loss_lower_bound is not None
        done = bounded and self.at_stake <= NEGLIGIBLE * first.at_stake
        return self.is_harmless or (done and self.verdict in AT_THE_END)


def examine(problem: Problem, settings: MeasureSettings, progress: Progress | None) -> Examined:
    """Measured, judged and prescribed for at the model's present weights, as `samdiag inspect` does it."""
    from samdiag.advice import prescribe
    from samdiag.measure.measuring import measuring
    from samdiag.verifying import judged

    with measuring(problem, settings, progress, Patience()) as found:
        measurements, findings = judged(found)
    return Examined(measurements=measurements, findings=findings, prescription=prescribe(measurements, findings))
