"""A measured number as a gate reads it: with the interval in which it lies, and what would make that narrower."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samdiag.quantities import quantity
from samdiag.reports.numbers import number, with_error
from samdiag.types import Diagnosis, Estimate, Measurements

# their errors stand beside them: standard errors of mini-batch noise in the trial run
TRIALS = {"lookahead_loss": "lookahead_error", "lookahead_loss_sgd": "lookahead_error_sgd"}
# what Hessian products say; where those failed their self-check, nothing
BY_PRODUCTS = frozenset(
    {
        "directional_curvature",
        "quadratic_error",
        "lambda_max",
        "lambda_min",
        "lambda_min_bound",
        "largest_multiplier",
        "surviving_gradient",
        "jacobian_zero",
    }
)
SURE = "about 95 %"  # numerical bound plus two standard errors: Estimate.spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A number, or the lack of one.

    Attributes:
        name: of `quantities.NAMES`.
        value: the number; None where there is only an interval, or nothing.
        low, high: where it lies, with about 95 %; minus and plus infinity where nothing is known on that side.
        text: value, error and what the error means, on one line: "−0.239 ± 0.002 (about 95 %)".
        todo: what makes the interval narrower; "" where nothing does.
    """

    name: str
    value: float | None
    low: float
    high: float
    text: str
    todo: str = ""


def read(diagnosis: Diagnosis, name: str) -> Reading:
    """What is known of the quantity called `name`.

    The residual of an eigenvalue is the distance to *some* eigenvalue, not to the end of the spectrum: where the solver
    stopped because the verdict was certain, the far side of lambda_max and lambda_min reaches to the bound on the whole
    spectrum, or to infinity where there is none. A ridge that was not found lies beyond what was searched. A number
    that did not converge and has no such bound says nothing.
    """
    m = diagnosis.measurements
    if m is None:
        return _nothing(name, "was not measured", "")
    found = quantity(diagnosis, name)
    if name in BY_PRODUCTS and not m.self_check.passed:
        return _nothing(name, f"is not to be believed: {m.self_check.reason}", "see the report's self-check")
    if name == "ridge_distance" and found is None and m.ridge_searched > 0:
        text = f"lies beyond {number(m.ridge_searched)}, as far as was searched"
        return Reading(name=name, value=None, low=m.ridge_searched, high=math.inf, text=text)
    if found is None:
        return _nothing(name, "was not measured", _missing_todo(name, m))
    if name in TRIALS:
        found = Estimate(value=found.value, sampling_error=float(getattr(m, TRIALS[name])))
    if name in ("lambda_max", "lambda_min"):
        return _end(name, found, m)
    if not found.converged:
        return _nothing(name, f"had not converged at {number(found.value)}", "give the run more products or time")
    return _plain(name, found)


def _nothing(name: str, why: str, todo: str) -> Reading:
    return Reading(name=name, value=None, low=-math.inf, high=math.inf, text=why, todo=todo)


def _missing_todo(name: str, m: Measurements) -> str:
    """What would have to be given for it to be measured, where that is plain."""
    needs_lr = ("lr", "lookahead_loss", "lookahead_loss_sgd", "lookahead_cosine", "largest_multiplier")
    return "give --lr" if name in needs_lr and m.lr is None else ""


def _plain(name: str, found: Estimate) -> Reading:
    assert found.value is not None
    low, high = _ends(found)
    todo = "use more --samples" if (found.sampling_error or 0.0) > found.error else ""
    return Reading(name=name, value=found.value, low=low, high=high, text=_text(found), todo=todo)


def _ends(found: Estimate) -> tuple[float, float]:
    """The interval; an error that is infinite, or not a number, says nothing on either side."""
    assert found.value is not None
    spread = found.spread()
    if spread == 0:
        return found.value, found.value
    return (found.low, found.high) if math.isfinite(spread) and math.isfinite(found.value) else (-math.inf, math.inf)


def _text(found: Estimate, more: str = "") -> str:
    assert found.value is not None
    value, error = with_error(found.value, found.spread())
    notes = [SURE] if error else []
    notes += ["sampling error unknown"] if found.sampling_error is None else []
    notes += [more] if more else []
    return " ".join(part for part in (value, error, f"({'; '.join(notes)})" if notes else "") if part)


def _end(name: str, found: Estimate, m: Measurements) -> Reading:
    """An end of the spectrum, with its far side at the bound where the solver did not go on to the end."""
    assert found.value is not None
    plain = _plain(name, found)
    if m.spectrum_complete or (found.converged and (m.solver is None or m.solver.stopped == "converged")):
        return plain
    top = name == "lambda_max"
    bound = (m.solver.lambda_max_bound if m.solver else None) if top else m.lambda_min_bound
    limit = (math.inf if top else -math.inf) if bound is None else bound
    chance = 2.0 * (found.sampling_error or 0.0)  # the bound is the samples' own: taken off, as the value's, is `bias`
    far = limit - (found.bias or 0.0) + (chance if top else -chance)
    low, high = (plain.low, max(plain.high, far)) if top else (min(plain.low, far), plain.high)
    sure = f"{100 * m.lambda_min_bound_probability:g} %"
    more = f"{'below' if top else 'above'} {number(far)} with {sure}" if math.isfinite(far) else "no bound beyond it"
    todo = "use --until converged" if m.solver and m.solver.stopped == "decided" else "give the solver more products"
    if plain.todo:
        todo = f"{todo}, and more --samples"
    return Reading(name=name, value=found.value, low=low, high=high, text=_text(found, more), todo=todo)
