"""What a scan over rho comes to: a verdict per radius, dangerous intervals, and the largest radius that is safe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from samdiag.advice.situation import Situation
from samdiag.sweep import Danger, SafeRho, SweepPoint
from samdiag.theory.saddle import escape_rate
from samdiag.types import Measurements, Severity
from samdiag.verdicts import judge_all

REFINEMENTS = 6  # bisections of the grid cell in which safety ends: 1.5 % of it, well below the tests' own margin
CONSTRAINTS = {
    "saddle-attraction": "saddle trap",
    "saddle-slowdown": "saddle trap",
    "hallucinated-minimizer": "ridge",
    "hallucinated-point": "ridge",
    "unstable": "edge of stability",
    "bounce": "edge of stability",
    "convergence-floor": "convergence floor",
    "undecided": "undecided",
}


def point_of(m: Measurements) -> SweepPoint:
    """One radius with its verdict."""
    findings = judge_all(m)
    first = findings[0]
    return SweepPoint(
        rho=m.rho,
        gradient_ratio=m.gradient_ratio,
        gradient_cosine=m.gradient_cosine,
        loss_change=m.loss_change,
        perturbed_grad_norm=m.perturbed_grad_norm,
        update_ratio=m.update_ratio,
        batch_ratio=m.batch_update.gradient_ratio if m.batch_update else None,
        effective_radius=m.effective_radius,
        retained_escape_rate=retained_share(m),
        verdict=first.verdict,
        severity=first.severity,
        confidence=first.confidence,
        findings=tuple(f.verdict for f in findings),
        message=first.message,
    )


def retained_share(m: Measurements) -> float | None:
    """The best escape rate over the negative eigenvalues found, over SGD's; None where there is none beyond its error.

    Source: theory A4.
    """
    negatives = [d for d in m.bottom_directions if d.eigenvalue.high + m.weight_decay < 0]
    if not negatives:
        return None
    plain = max(escape_rate(d.eigenvalue.value or 0.0, 0.0, m.weight_decay) for d in negatives)
    kept = max(escape_rate(d.eigenvalue.value or 0.0, d.effective_radius, m.weight_decay) for d in negatives)
    return max(kept, 0.0) / plain if math.isfinite(kept) else 0.0


def is_harmful(point: SweepPoint) -> bool:
    """Whether the verdict is worse than information; `undecided` is a gap and so not safe."""
    return point.severity is not Severity.INFO


def dangers(points: Sequence[SweepPoint]) -> tuple[Danger, ...]:
    """Runs of neighbouring radii with the same harmful verdict, `points` in rising order of rho."""
    found = []
    for (verdict, harmful), group in groupby(points, key=lambda p: (p.verdict, is_harmful(p))):
        members = list(group)
        if harmful:
            worst = min((p.severity for p in members), key=list(Severity).index)
            last = members[-1]
            found.append(
                Danger(low=members[0].rho, high=last.rho, verdict=verdict, severity=worst, message=last.message)
            )
    return tuple(found)


def largest_safe(
    points: Sequence[SweepPoint], measure: Callable[[float], SweepPoint], bounds: Sequence[tuple[str, float]]
) -> tuple[SafeRho, tuple[SweepPoint, ...]]:
    """The largest radius below which no scanned one is harmful, its grid cell bisected; and the radii that this added.

    Args:
        points: in rising order of rho.
        measure: one more radius.
        bounds: what theory says at this checkpoint.

    Source: theory D1 names the constraints; where each of them bites is what the verdicts say.
    """
    first = next((i for i, p in enumerate(points) if is_harmful(p)), None)
    ordered = tuple(sorted(bounds, key=lambda bound: bound[1]))
    if first is None:
        safe = SafeRho(value=points[-1].rho, binding=None, verdict=None, above=None, bounds=ordered)
        return safe, ()
    above = points[first]
    binding = _constraint(points[first:])
    if first == 0:
        return SafeRho(value=None, binding=binding, verdict=above.verdict, above=above.rho, bounds=ordered), ()
    below, added = points[first - 1], []
    for _ in range(REFINEMENTS):
        middle = measure(math.sqrt(below.rho * above.rho))
        added.append(middle)
        if is_harmful(middle):
            above = middle
        else:
            below = middle
    safe = SafeRho(
        value=below.rho,
        binding=binding,
        verdict=above.verdict,
        above=above.rho,
        bounds=ordered,
    )
    return safe, tuple(added)


def _constraint(harmful: Sequence[SweepPoint]) -> str:
    """What binds: the constraint of the first decided harm from here on; an `undecided` alone names none."""
    decided = (p for p in harmful if is_harmful(p) and p.verdict != "undecided")
    first = next(decided, harmful[0])
    return CONSTRAINTS.get(first.verdict, first.verdict)


def theory_bounds(m: Measurements) -> tuple[tuple[str, float], ...]:
    """Every bound of theory D1 at this checkpoint, by name."""
    return tuple((name, value) for value, name in Situation.of(m).rho_bounds())
