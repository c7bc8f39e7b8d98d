"""When both ends of the spectrum are known well enough: the rules behind `--until`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from samdiag.curvature.ritz import Decided, RitzEnds
from samdiag.measure.settings import MeasureSettings

BOUND_PROBABILITY = 0.99  # of the bounds on lambda_min and lambda_max
IRRELEVANT_SLACK = 10.0  # times the tolerance: how well a lambda_min must be known that lies far above −1/rho_eff
IRRELEVANT = 0.1  # rho_eff|lambda_min| below this: |g| is ten times what matters (verdicts' NEAR_SADDLE)
MARGIN = 1.25  # thresholds count as a band of this factor: rho_eff has an error bar of its own
REVERSED = 4.0  # a lowest eigenvalue that SAM reverses already: how much lower another may lie matters little
COARSE = 0.1  # relative residual of lambda_max that "decided" asks for: numbers are printed, not only compared
HORIZON = 1000  # steps within which an escape counts (verdicts' HORIZON)
EXITS_NEEDED = 5.0  # e-foldings within HORIZON below which leaving is worth nothing (verdicts' EXITS_NEEDED)
USABLE_EDGE = 0.05  # of the stability edge 2/lambda_max: the least learning rate these are counted with (verdicts')

Band = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stakes:
    """What the verdicts compare both ends with.

    Attributes:
        radius: effective radius; infinite at a critical point, 0: the thresholds of capture are not asked for.
        edge: curvature at the edge of stability; None: no lr.
        low_edge: USAM's edge on the negative side, where rho·lambda² throws it out; else None.
        decay: weight decay in the update: it moves every threshold.
        pace: lr(1 − dampening)/(1 − momentum), the learning rate in the long run; None: no lr.
        usam: nearness to a saddle is judged without the radius.
    """

    radius: float
    edge: float | None = None
    low_edge: float | None = None
    decay: float = 0.0
    pace: float | None = None
    usam: bool = False

    @classmethod
    def of(cls, settings: MeasureSettings, radius: float) -> Stakes:
        decay, usam = settings.update_decay, settings.variant == "usam"
        if settings.step_size is None or settings.edge is None:
            return cls(radius=radius, decay=decay, usam=usam)
        edge, low_edge = settings.edge - decay, None
        if usam and radius > 0 and edge > 0:  # lam(1 + rho·lam) = edge
            root = math.sqrt(1.0 + 4.0 * radius * edge)
            edge, low_edge = 2.0 * edge / (1.0 + root), -(1.0 + root) / (2.0 * radius)
        pace = settings.step_size / (1.0 - settings.momentum)
        return cls(radius=radius, edge=edge, low_edge=low_edge, decay=decay, pace=pace, usam=usam)

    def capture(self, factor: float = 1.0) -> Band | None:
        """The curvatures between which a negative direction is free at `factor` times the radius; None: nowhere.

        Source: theory A2, the roots of mu = lam(1 + rho_eff·lam) + wd.
        """
        radius = self.radius * factor
        if self.decay <= 0:
            return -1.0 / radius, 0.0
        room = 1.0 - 4.0 * radius * self.decay
        if room < 0:
            return None
        return -(1.0 + math.sqrt(room)) / (2.0 * radius), -2.0 * self.decay / (1.0 + math.sqrt(room))

    def bands(self, margin: float = MARGIN) -> list[Band]:
        """What a decided lambda_min does not lie in: the signs of lam + wd and of mu, for radii within the margin."""
        found = [] if self.low_edge is None else [(self.low_edge * margin, self.low_edge / margin)]
        near, far = (self.capture(1.0 / margin), self.capture(margin)) if self.radius > 0 else (None, None)
        if near is None:
            return [(-self.decay, -self.decay), *found]
        if far is None:
            return [(near[0], -self.decay), *found]
        return [(far[1], -self.decay), (near[0], far[0]), *found]

    def next_below(self, lowest: float) -> float:
        """The next number below `lowest` beyond which an unseen eigenvalue would be reversed by SAM, or freed where the
        decay alone holds `lowest`, or thrown out; −inf: none.

        The sign is not among them: the bulk lies at 0, and no bound would be clear of it.
        """
        lines = [] if self.low_edge is None else [self.low_edge]
        free, safe = (self.capture(), self.capture(MARGIN)) if self.radius > 0 else ((-math.inf, 0.0), None)
        if free is None:
            lines.append(-self.decay)
        else:
            lines.append(safe[0] if safe is not None and lowest > safe[0] else free[0])
            lines += [free[1]] if lowest < -self.decay else []
        return max((line for line in lines if line < lowest), default=-math.inf)

    def is_far(self, reach: float) -> bool:
        """Whether an eigenvalue of at least `reach` is free for certain, and |g| beyond its scale. Never for USAM."""
        return not self.usam and self.radius > 0 and reach > -IRRELEVANT / self.radius

    def may_pay(self, reach: float, largest: float) -> bool:
        """Whether leaving a saddle whose lowest eigenvalue is `reach` could be worth it, were the run to stand still.

        A run that stands still at a small depth is near a saddle however large its gradient is. That is only asked
        where next steps are tried, which takes an lr.
        """
        size = abs(min(reach, 0.0))
        if self.pace is None or size == 0:
            return False
        usable = max(self.pace, USABLE_EDGE * 2.0 / max(largest, size))
        return usable * size * HORIZON >= EXITS_NEEDED


def stopping_rule(settings: MeasureSettings, radius: float | None) -> Decided | None:
    """The rule of `settings.until`; None where every eigenvalue asked for must converge.

    Args:
        settings: with the learning rate, momentum, weight decay and tolerance.
        radius: effective radius whose thresholds count; None: unknown, as in a sweep. ASAM has one for every
            direction, so that its spectrum always converges.
    """
    if radius is None or settings.until == "converged" or settings.variant.startswith("asam"):
        return None
    stakes = Stakes.of(settings, radius)
    return decided(stakes) if settings.until == "decided" else ends_known(stakes, settings.tol)


def proof_target(radius: float | None) -> Callable[[float], float]:
    """For the lowest Ritz value: below which number it must be shown that no eigenvalue lies, for the verdicts' sake.

    Where |g| is far beyond the scale of a saddle, that none reaches the size at which it is not; where SAM reverses no
    direction, that it reverses none; where it does reverse one, or the radius is not known, that the lowest is the
    lowest to a factor.
    """

    def target(lowest: float) -> float:
        if not radius or not math.isfinite(radius):
            return lowest - abs(lowest)
        if lowest > -IRRELEVANT / radius:
            return -IRRELEVANT / radius
        return -1.0 / (MARGIN * radius) if lowest > -1.0 / (MARGIN * radius) else REVERSED * lowest

    return target


def ends_known(stakes: Stakes, tol: float) -> Decided:
    """Both ends are known to `tol`, no threshold that decides lies inside their bars or in what they may hide.

    The thresholds are −wd and those of capture for lambda_min, and the edge of stability for lambda_max. A lambda_min
    far above the thresholds of capture need be known only to IRRELEVANT_SLACK times the tolerance, which tells its
    sign: it lies in the bulk, where convergence is slow. What has not been seen must not change the verdict either: the
    bounds on the whole spectrum reach to no threshold beyond the ends. What is saved are the eigenvalues behind the
    first of either end.
    """
    lines = [end for band in stakes.bands(margin=1.0) for end in band]

    def certain(ends: RitzEnds) -> bool:
        low, low_error = ends.bottom[0], ends.bottom_residuals[0]
        high, high_error = ends.top[0], ends.top_residuals[0]
        if high_error > tol * abs(high) or (stakes.edge is not None and abs(high - stakes.edge) <= high_error):
            return False
        if any(abs(low - line) <= low_error for line in lines):
            return False
        slack = 1.0 if low_error <= tol * abs(low) else IRRELEVANT_SLACK
        if low_error > slack * tol * abs(low) or (slack > 1.0 and not stakes.is_far(low - low_error)):
            return False  # before the bounds, which cost more to compute
        below, above = ends.bounds(BOUND_PROBABILITY)
        if stakes.edge is not None and high < stakes.edge <= above:
            return False
        return below > stakes.next_below(low) if slack == 1.0 else stakes.is_far(below)

    return certain


def decided(stakes: Stakes) -> Decided:
    """No threshold that decides lies between the Ritz value and what bounds the end beyond it.

    The interval of an end reaches from its Ritz value, widened by the residual, to the bound that holds with
    BOUND_PROBABILITY. The values themselves may be known roughly only; they carry their residuals. A sign may stay
    open where every eigenvalue is far above the thresholds of capture and leaving could not be worth it.
    """
    bands = stakes.bands()

    def certain(ends: RitzEnds) -> bool:
        low, high = ends.bottom[0], ends.top[0]
        if ends.top_residuals[0] > COARSE * abs(high):
            return False  # before the bounds, which cost more to compute
        below, above = ends.bounds(BOUND_PROBABILITY)
        bottom = (min(below, low - ends.bottom_residuals[0]), low + ends.bottom_residuals[0])
        top = (high - ends.top_residuals[0], max(above, high + ends.top_residuals[0]))
        edge = stakes.edge
        if edge is not None and top[0] / MARGIN <= edge <= top[1] * MARGIN:
            return False
        if all(bottom[1] < first or bottom[0] > last for first, last in bands):
            return True
        held = any(first <= low <= last for first, last in bands)  # captured by the decay alone, as far as is seen
        return stakes.is_far(bottom[0]) and not held and not stakes.may_pay(bottom[0], high)

    return certain
