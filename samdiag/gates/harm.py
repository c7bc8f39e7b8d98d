"""How bad a known finding is: for each verdict the one measured number that says so, and in which direction.

What a baseline compares is not whether a verdict holds but whether it got worse, so that the number must grow with the
harm at equal settings (rho, lr, … are equal, else nothing is compared), and must have error bars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from samdiag.gates.readings import read
from samdiag.types import Diagnosis, Estimate, Measurements

# Relative. The same checkpoint in float32 and float64, on one and two threads, gave the compared numbers (loss,
# gradient, curvature, ratio) equal to 1e-7; a hundred times that also covers the six digits of the file.
REPRODUCIBLE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A number that says how bad something is.

    Attributes:
        name: what it is called in the baseline and in messages.
        value: None where it was not measured, or there is only an interval.
        low, high: where it lies with about 95 %.
        worse: +1 where more is worse, −1 where less is.
    """

    name: str
    value: float | None
    low: float
    high: float
    worse: int

    @property
    def error(self) -> float:
        """How far beyond `value` it may lie on the worse side."""
        if self.value is None:
            return math.inf
        far = self.high - self.value if self.worse > 0 else self.value - self.low
        return max(far, 0.0) if not math.isnan(far) else math.inf

    @property
    def doubt(self) -> float:
        """How far short of `value` it may lie, on the harmless side."""
        return math.inf if self.value is None else max(self.value * self.worse - self.at_least, 0.0)

    @property
    def at_least(self) -> float:
        """The harmless end of its interval, times `worse`."""
        return min(self.low * self.worse, self.high * self.worse)


def is_worse(now: Level, value: float | None, error: float) -> bool:
    """Whether `now` is worse than `value` ± `error` by more than both errors, and by more than REPRODUCIBLE.

    False where either was not measured: what cannot be compared did not get worse for certain.
    """
    if now.value is None or value is None or math.isnan(error):
        return False
    before = value * now.worse + error
    if math.isinf(before):
        return False
    margin = REPRODUCIBLE * max(abs(value), abs(now.value)) if math.isfinite(now.value) else 0.0
    return now.at_least > before + margin


def harm(diagnosis: Diagnosis, verdict: str) -> Level | None:
    """The number that says how bad `verdict` is here; None where a verdict has no degrees, or nothing was measured."""
    return HARM[verdict](diagnosis) if verdict in HARM and diagnosis.measurements is not None else None


def _measured(name: str, worse: int) -> Callable[[Diagnosis], Level]:
    def level(diagnosis: Diagnosis) -> Level:
        found = read(diagnosis, name)
        return Level(name=name, value=found.value, low=found.low, high=found.high, worse=worse)

    return level


def _edge(diagnosis: Diagnosis) -> Level | None:
    """eta·mu over all directions with its error bar, as `unstable` is judged."""
    from samdiag.verdicts.unstable import edge_position

    m = diagnosis.measurements
    position = edge_position(m) if m is not None else None
    if position is None:
        return None
    low, value, high = position
    return Level(name="lr_times_curvature", value=value, low=low, high=high, worse=1)


def _update_ratio(diagnosis: Diagnosis) -> Level | None:
    """|g+|/|g| of the update that is run: mini-batches' where they were measured."""
    from samdiag.verdicts.reading import run_update_ratio

    return None if diagnosis.measurements is None else _level("update_ratio", run_update_ratio(diagnosis.measurements))


def _level(name: str, found: Estimate) -> Level | None:
    if found.value is None or math.isnan(found.value) or not found.converged:
        return None
    return Level(name=name, value=found.value, low=found.low, high=found.high, worse=-1)


def _trap(diagnosis: Diagnosis) -> Level | None:
    """rho_eff·|lambda_min|, the error from both."""
    m = diagnosis.measurements
    lam = read(diagnosis, "lambda_min")
    if m is None or lam.value is None or lam.value >= 0:
        return None
    share = _radius_share(m)
    radius = m.effective_radius
    low, high = max(-lam.high, 0.0) * radius * max(1.0 - share, 0.0), -lam.low * radius * (1.0 + share)
    return Level(name="radius_times_lambda_min", value=-lam.value * radius, low=low, high=high, worse=1)


def _radius_share(m: Measurements) -> float:
    """Relative error of the effective radius rho/√(|g|² + tr C/m): at most that of |g|, or half of that of tr C.

    0 for USAM, whose radius is rho itself; infinite where the radius is, at a vanishing gradient.
    """
    if m.variant == "usam":
        return 0.0
    shares = [_share(m.grad_norm)]
    if m.ascent_noise > 0:
        shares.append(_share(m.noise_trace) / 2.0)
    return max(shares)


def _share(found: Estimate) -> float:
    return found.spread() / abs(found.value) if found.value else math.inf


HARM: Mapping[str, Callable[[Diagnosis], Level | None]] = {
    # A1: every step multiplies the distance by more, the further eta·mu lies beyond the edge 2(1+gamma)
    "unstable": _edge,
    # B1: g+ = 0 is what it is; the nearer the update is to 0, the further SAM has settled there
    "hallucinated-minimizer": _update_ratio,
    # A2, A5: the trapped ball |g| < rho|lambda| grows with |lambda_min|, and B_crit (A7) falls with its square
    "saddle-attraction": _measured("lambda_min", -1),
    # A4: no saddle is left faster than 1/(4 rho_eff), so SGD is at least 4 rho_eff|lambda_min| times faster
    "saddle-slowdown": _trap,
    # B1, B3: it repels, and the run drifts off by an update that is this share of the gradient
    "hallucinated-point": _update_ratio,
    # SI: constant rho stops short of the optimum, and the loss there is what that costs
    "convergence-floor": _measured("loss", 1),
    # A9: |g| = lam·c on a bounce of amplitude c, |g|²/(2 lam) above the valley floor
    "bounce": _measured("grad_norm", 1),
    # A4, as for saddle-slowdown: less of SGD's rate is kept
    "saddle-escaping": _trap,
    # `undecided`, `descending` and `minimum` have no degrees: they are there or not
}
