"""What each verdict is called and what it means for a run, in words for somebody who has not read the papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from samdiag.types import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictWords:
    """A verdict for readers.

    Attributes:
        headline: what it is, in two to four words.
        meaning: what it means for this run, one sentence.
        severity: how bad it is where no finding says so.
        color: a Rich colour name; never the only carrier of the meaning.
    """

    headline: str
    meaning: str
    severity: Severity
    color: str


VERDICT_WORDS: Mapping[str, VerdictWords] = {
    "unstable": VerdictWords(
        headline="Unstable step size",
        meaning="The learning rate is beyond what the curvature here allows, so each step makes the error grow: "
        "this run is diverging or about to.",
        severity=Severity.ERROR,
        color="red",
    ),
    "hallucinated-minimizer": VerdictWords(
        headline="Hallucinated minimizer",
        meaning="SAM has stopped at a point that is no minimum: the gradient it follows vanishes while the true one "
        "does not, and nearby runs are drawn in, so more steps at this rho change nothing.",
        severity=Severity.ERROR,
        color="red",
    ),
    "saddle-attraction": VerdictWords(
        headline="Caught in a saddle",
        meaning="SAM's perturbation reverses every downhill direction of this saddle, so the run is pulled in "
        "instead of escaping: more steps at these settings will not help.",
        severity=Severity.ERROR,
        color="red",
    ),
    "saddle-slowdown": VerdictWords(
        headline="Slowed at a saddle",
        meaning="The run can still leave this saddle, but SAM's perturbation makes it many times slower than plain SGD "
        "would be.",
        severity=Severity.WARNING,
        color="yellow",
    ),
    "hallucinated-point": VerdictWords(
        headline="Hallucinated point (repelling)",
        meaning="The gradient SAM follows vanishes although the true one does not, but the point pushes runs away: "
        "expect a delay here, not a trap.",
        severity=Severity.WARNING,
        color="yellow",
    ),
    "convergence-floor": VerdictWords(
        headline="At SAM's convergence floor",
        meaning="The gradient is as small as a constant rho lets it become: more steps do not help until rho decays.",
        severity=Severity.WARNING,
        color="yellow",
    ),
    "bounce": VerdictWords(
        headline="Bouncing across a ravine",
        meaning="The iterates jump from wall to wall of a sharp valley instead of moving along it, "
        "so the loss stays above its floor.",
        severity=Severity.WARNING,
        color="yellow",
    ),
    "saddle-escaping": VerdictWords(
        headline="Leaving a saddle",
        meaning="There is a saddle here and SAM is leaving it at close to the pace of plain SGD: let it run.",
        severity=Severity.INFO,
        color="cyan",
    ),
    "undecided": VerdictWords(
        headline="Undecided",
        meaning="What was measured lies too close to a boundary, or was not measured well enough, to say: "
        "this is a gap, not a pass.",
        severity=Severity.WARNING,
        color="magenta",
    ),
    "descending": VerdictWords(
        headline="Still descending",
        meaning="The run is on its way down and nothing holds it here: let it run.",
        severity=Severity.INFO,
        color="cyan",
    ),
    "minimum": VerdictWords(
        headline="At a minimum",
        meaning="The run is at rest: neither SAM nor plain steps would gain anything that counts from here.",
        severity=Severity.INFO,
        color="green",
    ),
}


PRODUCT_WORDS = {
    "kept": "kept graphs",
    "recomputed": "recomputed",
    "forward": "forward over reverse",
    "compiled": "compiled",
    "difference": "central differences",
}


def words_for(verdict: str) -> VerdictWords:
    """The words of `verdict`; for an id that is not built in, the id itself under a neutral colour."""
    known = VERDICT_WORDS.get(verdict)
    if known is not None:
        return known
    return VerdictWords(
        headline=verdict.replace("-", " ").capitalize() or "No verdict",
        meaning="This verdict is not one of samdiag's own; its findings below say what it means.",
        severity=Severity.WARNING,
        color="magenta",
    )
