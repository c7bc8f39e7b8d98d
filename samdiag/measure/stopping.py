"""When both ends of the spectrum are known well enough: the rules behind `--until`."""

from __future__ import annotations

import math
from collections.abc import Callable

from samdiag.curvature.ritz import Decided, RitzEnds
from samdiag.measure.settings import MeasureSettings
from samdiag.theory.edge import stability_edge

BOUND_PROBABILITY = 0.99  # of the bounds on lambda_min and lambda_max
IRRELEVANT_SLACK = 10.0  # times the tolerance: how well a lambda_min must be known on which no verdict depends
IRRELEVANT = 0.1  # rho_eff|lambda_min| below this: no saddle verdict can follow (|g| is ten times what matters)
MARGIN = 1.25  # thresholds count as a band of this factor: rho_eff has an error bar of its own
REVERSED = 4.0  # a lowest eigenvalue that SAM reverses already: how much lower another may lie matters little
COARSE = 0.1  # relative residual of lambda_max that "decided" asks for: numbers are printed, not only compared


def stopping_rule(settings: MeasureSettings, radius: float | None) -> Decided | None:
    """The rule of `settings.until`; None where every eigenvalue asked for must converge.

    Args:
        settings: with the learning rate, momentum and tolerance.
        radius: effective radius whose thresholds count; None: unknown, as in a sweep. ASAM has one for every
            direction, so that its spectrum always converges.
    """
    if radius is None or settings.until == "converged" or settings.variant.startswith("asam"):
        return None
    edge = None
    if settings.step_size:
        edge = stability_edge(settings.momentum, nesterov=settings.nesterov) / settings.step_size
    return decided(radius, edge) if settings.until == "decided" else ends_known(radius, edge, settings.tol)


def proof_target(radius: float | None) -> Callable[[float], float]:
    """For the lowest Ritz value: below which number it must be shown that no eigenvalue lies, for the verdicts' sake.

    Where no saddle verdict can follow, that none reaches the size at which one could; where SAM reverses no direction,
    that it reverses none; where it does reverse one, or the radius is not known, that the lowest is the lowest to a
    factor.
    """

    def target(lowest: float) -> float:
        if not radius or not math.isfinite(radius):
            return lowest - abs(lowest)
        if lowest > -IRRELEVANT / radius:
            return -IRRELEVANT / radius
        return -1.0 / (MARGIN * radius) if lowest > -1.0 / (MARGIN * radius) else REVERSED * lowest

    return target


def ends_known(radius: float, edge: float | None, tol: float) -> Decided:
    """Both ends are known to `tol`, and no threshold that decides lies inside their bars.

    The thresholds are 0 and −1/rho_eff for lambda_min and the edge of stability for lambda_max. A lambda_min so small
    that no saddle verdict can depend on it need be known only to IRRELEVANT_SLACK times the tolerance: it lies in the
    bulk, where convergence is slow. What is saved are the eigenvalues behind the first of either end.
    """

    def certain(ends: RitzEnds) -> bool:
        low, low_error = ends.bottom[0], ends.bottom_residuals[0]
        high, high_error = ends.top[0], ends.top_residuals[0]
        thresholds = [0.0] + ([-1.0 / radius] if radius > 0 else [])
        clear = low_error <= tol * abs(low) and all(abs(low - t) > low_error for t in thresholds)
        slack = IRRELEVANT_SLACK * tol * abs(low)
        irrelevant = radius > 0 and low - low_error > -IRRELEVANT / radius and low_error <= slack
        top_clear = high_error <= tol * abs(high) and (edge is None or abs(high - edge) > high_error)
        return top_clear and (clear or irrelevant)

    return certain


def decided(radius: float, edge: float | None) -> Decided:
    """No threshold that decides lies between the Ritz value and what bounds the end beyond it.

    The interval of an end reaches from its Ritz value, widened by the residual, to the bound that holds with
    BOUND_PROBABILITY. The values themselves may be known roughly only; they carry their residuals.
    """

    def certain(ends: RitzEnds) -> bool:
        low, high = ends.bottom[0], ends.top[0]
        if ends.top_residuals[0] > COARSE * abs(high):
            return False  # before the bounds, which cost more to compute
        below, above = ends.bounds(BOUND_PROBABILITY)
        bottom = (min(below, low - ends.bottom_residuals[0]), low + ends.bottom_residuals[0])
        top = (high - ends.top_residuals[0], max(above, high + ends.top_residuals[0]))
        if edge is not None and top[0] / MARGIN <= edge <= top[1] * MARGIN:
            return False
        if radius > 0 and bottom[0] > -IRRELEVANT / radius:
            return True
        bands = [(0.0, 0.0)] + ([(-MARGIN / radius, -1.0 / (MARGIN * radius))] if radius > 0 else [])
        return all(bottom[1] < first or bottom[0] > last for first, last in bands)

    return certain
