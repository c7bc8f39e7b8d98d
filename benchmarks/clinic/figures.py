"""The stored cases counted: confusion, accuracy, rescue rates, predicted against observed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.clinic.judging import CALLS_STUCK, is_right
from benchmarks.clinic.rescue import HALF_RHO, PRESCRIBED, WARM_START, rescued
from benchmarks.clinic.truth import gain, label
from samdiag.types import VERDICTS_BY_HARM

Case = dict[str, Any]
LABELS = ("stuck", "slowed", "resting", "healthy", "diverging", "borderline")
CALLED = CALLS_STUCK | {"saddle-slowdown"}  # where a prescription has to help
TREATED, NOTHING, SGD = "treated in rounds", "do nothing", "switch to SGD"
ARMS = (PRESCRIBED, TREATED, NOTHING, HALF_RHO, SGD, WARM_START)
Z95 = 1.96  # of a 95 % interval


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share; (0, 1) of nothing.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    if count == 0:
        return 0.0, 1.0
    share, z2 = hits / count, Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def rate(hits: int, count: int) -> dict[str, Any]:
    """A share with its interval."""
    low, high = wilson(hits, count)
    return {"hits": hits, "count": count, "share": hits / count if count else None, "low": low, "high": high}


def verdict_of(case: Case, *, verified: bool = False) -> str | None:
    """samdiag's verdict, with the probe where `verified`; None where it was not asked."""
    judged = case.get("judged", {})
    found: str | None = judged.get("verified", {}).get("verdict") if verified else judged.get("verdict")
    return found


def judged_cases(cases: Iterable[Case], *, verified: bool = False) -> list[Case]:
    """The cases that have a label and a verdict."""
    return [c for c in cases if label(c["truth"]) in LABELS and verdict_of(c, verified=verified) is not None]


def diagnosis(cases: list[Case], *, verified: bool = False) -> dict[str, Any]:
    """How right the verdicts are on these cases."""
    known = judged_cases(cases, verified=verified)
    clear = [c for c in known if label(c["truth"]) != "borderline"]
    answers = [is_right(verdict_of(c, verified=verified) or "", c) for c in clear]
    undecided = sum(verdict_of(c, verified=verified) == "undecided" for c in clear)
    healthy = [c for c in clear if label(c["truth"]) == "healthy"]
    table = Counter((label(c["truth"]), verdict_of(c, verified=verified) or "") for c in known)
    return {
        "cases": len(known),
        "runs": len({(c["case"]["family"], str(c["case"]["setting"]), c["case"]["seed"]) for c in known}),
        "borderline": len(known) - len(clear),
        "right": rate(sum(a is True for a in answers), sum(a is not None for a in answers)),
        "undecided": rate(undecided, len(clear)),
        "healthy_called_stuck": rate(
            sum(verdict_of(c, verified=verified) in CALLS_STUCK for c in healthy), len(healthy)
        ),
        "confusion": {
            name: {verdict: table[name, verdict] for verdict in VERDICTS_BY_HARM if table[name, verdict]}
            for name in LABELS
            if any(key[0] == name for key in table)
        },
    }


def wrong(cases: list[Case], *, verified: bool = False) -> list[Case]:
    """The cases whose verdict did not come true."""
    return [
        c
        for c in judged_cases(cases, verified=verified)
        if is_right(verdict_of(c, verified=verified) or "", c) is False
    ]


def runs_of_arm(case: Case, arm: str) -> list[dict[str, Any]] | None:
    """The continuations of one remedy; None where it was not tried; empty where it has nothing to offer."""
    rescue, truth = case.get("rescue", {}), case["truth"]
    if arm == NOTHING:
        return list(truth["sam"])
    if arm == SGD:
        return list(truth["sgd"])
    if arm == TREATED:
        return case["treated"].get("runs") if "treated" in case else None
    if arm not in rescue:
        return None
    found = rescue[arm]
    return (found["runs"] if found else []) if arm == PRESCRIBED else found


def rescue(cases: list[Case], wanted: Callable[[Case], bool]) -> dict[str, Any]:
    """For every remedy, how many of the wanted cases it rescues; one without anything to offer rescues none."""
    chosen = [c for c in judged_cases(cases) if wanted(c)]
    found = {}
    for arm in ARMS:
        tried = [(c, runs) for c in chosen if (runs := runs_of_arm(c, arm)) is not None]
        found[arm] = rate(sum(rescued(runs, c["truth"]) is True for c, runs in tried), len(tried))
    return found


def is_stuck(case: Case) -> bool:
    """By the truth."""
    return label(case["truth"]) == "stuck"


def is_called(case: Case) -> bool:
    """By the verdict: stuck or slowed down, where SGD would have helped."""
    plain = gain(case["truth"]["sgd"], case["truth"]["loss"])[0] if "left" not in case["truth"] else 1.0
    return verdict_of(case) in CALLED and plain > 0.1  # where SGD takes off less, nothing can be rescued


def escapes(cases: list[Case]) -> list[dict[str, Any]]:
    """Predicted and observed steps of every prescription that predicts them; observed None: not left within H."""
    found = []
    for case in judged_cases(cases):
        followed = case.get("rescue", {}).get(PRESCRIBED)
        if not followed or followed["predicted"] is None:
            continue
        steps = [math.inf if run["escape"] is None else run["escape"] for run in followed["runs"]]
        middle = statistics.median(steps)
        found.append(
            {
                "name": case["case"]["name"],
                "family": case["case"]["family"],
                "half": case["case"]["half"],
                "horizon": case["truth"]["horizon"],
                "predicted": followed["predicted"],
                "observed": middle if math.isfinite(middle) else None,
            }
        )
    return found


def ratios(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and quartiles of observed over predicted; an escape that did not come within H counts as infinite.

    Where more than H steps are predicted an escape cannot be seen: such predictions are left out.
    """
    seen = [e for e in found if e["predicted"] <= e["horizon"]]
    values = sorted(math.inf if e["observed"] is None else e["observed"] / e["predicted"] for e in seen)
    if not values:
        return {"count": 0}
    cuts = [_quantile(values, q) for q in (0.25, 0.5, 0.75)]
    low, median, high = (value if math.isfinite(value) else None for value in cuts)
    missed = sum(not math.isfinite(v) for v in values)
    return {"count": len(values), "left": len(values) - missed, "low": low, "median": median, "high": high}


def _quantile(values: list[float], q: float) -> float:
    """Between the neighbours by a straight line; infinite where one of them is."""
    place = q * (len(values) - 1)
    low, high = math.floor(place), math.ceil(place)
    if low == high:
        return values[low]
    return values[low] + (place - low) * (values[high] - values[low]) if math.isfinite(values[high]) else math.inf


def digest(cases: list[Case]) -> dict[str, Any]:
    """All figures of these cases."""
    return {
        "diagnosis": diagnosis(cases),
        "verified": diagnosis(cases, verified=True),
        "rescue_of_stuck": rescue(cases, is_stuck),
        "rescue_of_called": rescue(cases, is_called),
        "escape": ratios(escapes(cases)),
    }
