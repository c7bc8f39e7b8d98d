"""Verdicts on random quadratics held to the simulated optimiser; `tests.verdicts.confusion` makes a page of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from samdiag.types import Diagnosis

from .quadratics import Case, cycle_gradient, examine, random_cases, simulate, starts, track

STEPS = 20_000
LONG = 400_000  # for claims that come true late
TELLABLE = 30.0  # e-foldings that a claimed escape must have had time for
SHIFT = 0.05  # the margin of theory A5: of rho, and of every gradient component
USAM_MARGIN = 0.005  # the linear test is exact at a critical point; half a percent for the point not being one
ROUNDING = 1e-12  # of |lam|_max: an eigenvalue below it is 0
PATIENCE = 40_000  # a forecast is made where plain steps have 20 e-foldings in so many steps
NEARBY = 192  # shifted runs that an open verdict is held to, half of them by the whole of SHIFT
KEPT = 0.5  # of its gradient that a bounce must keep up
GROWN = 1.25  # in STEPS more steps
LONGER = 27.0  # times the bounce: the longest cycles with momentum 0.9 (theory A9)
TREND = 24  # steps over which a claim about the loss is held to the simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case: what was said, what happened, and how the two agree.

    Attributes:
        agreement: "agrees", or the class of a claim that is not, or not yet, borne out.
        failed: the verdict is wrong or an undecided one has no margin to point at.
    """

    case: Case
    verdict: str
    confidence: str
    message: str
    outcome: str
    agreement: str
    failed: bool


def study(count: int, seed: int) -> list[Row]:
    """Random cases, examined and simulated."""
    return held_to_simulation(random_cases(count, seed))


def held_to_simulation(cases: list[Case]) -> list[Row]:
    """Every case examined and simulated."""
    outcomes = simulate(cases, steps=STEPS).outcome
    diagnoses = [examine(case) for case in cases]
    late = _late(cases, outcomes, diagnoses)
    rows = []
    for i, (case, diagnosis, outcome) in enumerate(zip(cases, diagnoses, outcomes, strict=True)):
        agreement, failed = compare(case, diagnosis, outcome, late.get(i))
        first = diagnosis.findings[0]
        rows.append(
            Row(
                case=case,
                verdict=diagnosis.verdict,
                confidence=str(first.confidence),
                message=first.message,
                outcome=outcome,
                agreement=agreement,
                failed=failed,
            )
        )
    return rows


def _late(cases: list[Case], outcomes: list[str], diagnoses: list[Diagnosis]) -> dict[int, str]:
    """What becomes of cases that were to leave or diverge, or that a forecast left open, and had stayed for STEPS.

    The claims are given LONG steps, if that is enough for them; a forecast looks no further than PATIENCE.
    """
    still = [i for i, outcome in enumerate(outcomes) if outcome == "stays"]
    moving = [i for i in still if _exponent(cases[i], diagnoses[i].verdict) * LONG >= TELLABLE]
    left_open = [
        i for i in still if diagnoses[i].verdict == "undecided" and "disagree" in diagnoses[i].findings[0].message
    ]
    found: dict[int, str] = {}
    for some, steps in ((moving, LONG), (left_open, 2 * PATIENCE)):
        if some:
            found |= zip(some, simulate([cases[i] for i in some], steps=steps).outcome, strict=True)
    return found


def _exponent(case: Case, verdict: str) -> float:
    """Growth per step that the verdict claims; 0 where it claims none."""
    if verdict in ("saddle-escaping", "saddle-slowdown"):
        return escape_exponent(case)
    return instability_exponent(case) if verdict == "unstable" else 0.0


def compare(case: Case, diagnosis: Diagnosis, outcome: str, late: str | None) -> tuple[str, bool]:
    """How the verdict and the simulation agree, and whether that is a failure."""
    verdict = diagnosis.verdict
    if verdict in ("saddle-attraction", "minimum", "convergence-floor"):
        return ("agrees", False) if outcome == "stays" else (f"claimed to stay, {outcome}", True)
    if verdict in ("saddle-escaping", "saddle-slowdown"):
        return _compare_moving(outcome == "leaves", late == "leaves", _exponent(case, verdict), outcome)
    if verdict == "unstable":
        moves = outcome != "stays"
        return _compare_moving(moves, late not in (None, "stays"), _exponent(case, verdict), outcome)
    if verdict == "bounce":
        return _compare_bounce(case, diagnosis, outcome)
    if verdict == "descending":
        if loss_falls(case):
            return "agrees", False
        if case.variant == "sam" and diagnosis.findings[0].confidence == "low" and is_below_bounce(case):
            return "descends from below its own bounce, said with low confidence", False
        return "claimed to descend, loss rises", True
    if verdict == "hallucinated-point":
        return ("agrees", False) if drifts_off(case) else ("claimed to drift off, stays put", True)
    if verdict == "undecided":
        margin = margin_of(case, outcome, late, stated_margins(diagnosis.findings[0].message))
        return (f"undecided: {margin}", False) if margin else ("undecided outside every margin", True)
    return f"no rule for {verdict}", True


def _compare_moving(now: bool, later: bool, exponent: float, outcome: str) -> tuple[str, bool]:
    """A claim to leave or diverge: borne out, borne out late, or too slow to be seen."""
    if now:
        return "agrees", False
    if later:
        return f"agrees, after more than {STEPS} steps", False
    if exponent * LONG < TELLABLE:
        return f"too slow for {LONG} steps", False
    return f"claimed to move, {outcome}", True


def _compare_bounce(case: Case, diagnosis: Diagnosis, outcome: str) -> tuple[str, bool]:
    """No closer to the valley floor, and no escape where the message says so."""
    evidence = diagnosis.findings[0].evidence
    if not keeps_bouncing(case):
        return "claimed to bounce, comes closer", True
    foreseen = evidence.get("forecast")
    if outcome == (foreseen or "stays"):
        return "agrees", False
    return ("bounces, escape left open", False) if foreseen == "open" else (f"bounces, {outcome}", True)


# ---------------------------------------------------------------- what the simulation says


def loss_falls(case: Case) -> bool:
    """Whether f has fallen after TREND steps, or after momentum's swing has died down."""
    return any(after < before for before, after in _loss_before_and_after(case, plain=False))


def is_below_bounce(case: Case) -> bool:
    """Whether |g| is below that of SAM's own cycles, which the run will first climb to."""
    return float(np.linalg.norm(np.array(case.lam) * np.array(case.x))) < LONGER * cycle_gradient(case)


def plain_raises_loss(case: Case) -> bool:
    """Whether plain steps are higher than where they began, after TREND steps or after momentum's swing."""
    return any(after > before for before, after in _loss_before_and_after(case, plain=True))


def _loss_before_and_after(case: Case, *, plain: bool) -> list[tuple[float, float]]:
    found = []
    for steps in (TREND, round(TREND / (1 - case.momentum))):
        losses = 0.5 * (np.array(case.lam) * track(case, steps, plain=plain) ** 2).sum(axis=1)
        found.append((float(losses[0]), float(losses[-steps // 3 :].mean())))
    return found


def keeps_bouncing(case: Case) -> bool:
    """Whether |g| stays of the size that it has, or of the bounce's where it is larger now."""
    norms = np.linalg.norm(track(case, 400) * np.array(case.lam), axis=1)
    return bool(norms[-40:].max() > KEPT * min(norms[0], cycle_gradient(case)))


def drifts_off(case: Case) -> bool:
    """Whether the run is elsewhere in the end."""
    points = track(case, 4000)
    way = np.linalg.norm(np.clip(points, -1e100, 1e100) - points[0], axis=1)
    return bool(np.nanmax(way) > 0.1 * case.rho)


def growth(mu: float, case: Case) -> float:
    """log of the larger multiplier of the mode of curvature mu, from the optimiser's own matrix."""
    lr, gamma = case.step, case.momentum
    rows = [[1 - lr * mu * (1 + gamma * case.nesterov), -lr * gamma * (gamma if case.nesterov else 1)], [mu, gamma]]
    return math.log(max(np.abs(np.linalg.eigvals(np.array(rows))).max(), 1e-300))


def escape_exponent(case: Case, *, plain: bool = False) -> float:
    """Growth per step along the fastest negative direction, at today's radius; `plain`: without SAM."""
    lam = np.array([v for v in case.lam if v + case.weight_decay < 0])
    norm = float(np.linalg.norm(np.array(case.lam) * np.array(case.x)))
    radius = 0.0 if plain else case.rho if case.variant == "usam" else case.rho / norm if norm > 0 else 0.0
    mus = lam * (1 + radius * lam) + case.weight_decay
    return max((growth(float(mu), case) for mu in mus if mu < 0), default=0.0)


def instability_exponent(case: Case) -> float:
    """Growth per step along the direction that is furthest beyond the edge."""
    radius = case.rho if case.variant == "usam" else 0.0
    return max(growth(v * (1 + radius * v) + case.weight_decay, case) for v in case.lam)


# ---------------------------------------------------------------- margins

THRESHOLD = "rho_eff·|lam| within the margin of 1"
FLIPS = "shifting rho or the start by 5 % changes the outcome"
LATE = f"leaves after more than {STEPS} steps"
SLOW = f"lr too small: plain steps have fewer than 20 e-foldings in {PATIENCE} steps"
DEGENERATE = "an eigenvalue is 0 to rounding"
ON_EDGE = "lr on the edge of stability to rounding"
NEAR_EDGE = "lr within 5 % of the edge of stability"
GROWS = "a negative direction still grows after 20 000 steps, here or near by"
AT_DECAY = "an eigenvalue is −wd to half a percent"
DECAY = "weight decay outweighs the gradient: plain steps raise the loss too"


def stated_margins(message: str) -> list[str]:
    """The margins that a stated reason points at."""
    reasons = {
        "cannot be told from 1": [THRESHOLD],
        "disagree": [LATE, FLIPS, GROWS],
        "free now, but captured once": [SLOW],
        "the swing along": [SLOW],
        "momentum may carry": [SLOW],
        "degenerate": [DEGENERATE],
        "on the edge of stability": [ON_EDGE],
        "of the edge of stability": [NEAR_EDGE],
        "weight decay": [DECAY, AT_DECAY],
    }
    return [margin for words, margins in reasons.items() if words in message for margin in margins]


def margin_of(case: Case, outcome: str, late: str | None, stated: list[str]) -> str | None:
    """The first of the stated margins inside which the case lies, computed without samdiag."""
    tests = {
        THRESHOLD: is_at_threshold,
        DEGENERATE: has_zero_curvature,
        ON_EDGE: lambda c: abs(edge_share(c) - 1) <= ROUNDING,
        NEAR_EDGE: lambda c: abs(edge_share(c) - 1) <= SHIFT,
        AT_DECAY: has_curvature_of_decay,
        DECAY: lambda c: c.weight_decay > max(map(abs, c.lam)) or (c.weight_decay > 0 and plain_raises_loss(c)),
        SLOW: lambda c: escape_exponent(c, plain=True) * PATIENCE < 20,
        LATE: lambda _: late is not None and late != outcome,
        FLIPS: flips,
        GROWS: grows,
    }
    return next((margin for margin in stated if tests[margin](case)), None)


def is_at_threshold(case: Case) -> bool:
    """Whether rho_eff·|lam| of some negative direction is 1, or what wd leaves of it, within the margin."""
    lam = np.array(case.lam)
    norm = float(np.linalg.norm(lam * np.array(case.x)))
    negative = np.abs(lam[lam + case.weight_decay < 0])
    radius = case.rho if case.variant == "usam" else case.rho / norm if norm > 0 else math.inf
    share = radius * negative / (1 - case.weight_decay / negative)
    return bool((np.abs(share - 1) <= (USAM_MARGIN if case.variant == "usam" else SHIFT) * 1.1).any())


def has_zero_curvature(case: Case) -> bool:
    """Whether the update's curvature lam + wd is 0 to rounding along some direction."""
    lam = np.array(case.lam)
    return bool((np.abs(lam + case.weight_decay) <= ROUNDING * np.abs(lam).max()).any())


def has_curvature_of_decay(case: Case) -> bool:
    """Whether some eigenvalue is −wd to half a percent."""
    wd = case.weight_decay
    return wd > 0 and bool((np.abs(np.array(case.lam) + wd) <= USAM_MARGIN * wd).any())


def edge_share(case: Case) -> float:
    """eta·mu over the edge of stability, mu the largest."""
    lam = np.array(case.lam)
    mu = lam * (1 + (case.rho if case.variant == "usam" else 0.0) * lam) + case.weight_decay
    return float(case.step * mu.max() / case.edge)


def flips(case: Case) -> bool:
    """Whether the runs near by end differently."""
    runs, begin = nearby(case)
    return len(set(simulate(runs, steps=STEPS, begin=begin).outcome)) > 1


def grows(case: Case) -> bool:
    """Whether, in some run near by, a negative direction's gradient still grows by GROWN in STEPS more steps."""
    runs, begin = nearby(case)
    first = simulate(runs, steps=STEPS, begin=begin).last
    lam = np.minimum(np.array(case.lam), 0.0)
    later = simulate(runs, steps=STEPS, begin=first).last
    pairs = zip(first, later, strict=True)
    return any((np.abs(lam * b) > GROWN * np.maximum(np.abs(lam * a), 1e-9 * case.rho)).any() for a, b in pairs)


def nearby(case: Case) -> tuple[list[Case], list[np.ndarray]]:
    """NEARBY runs with rho and every component of the start shifted by up to 5 %."""
    rng = np.random.default_rng(3)
    here = starts([case])[0]

    def shifts(i: int, size: int) -> np.ndarray:
        drawn = rng.uniform(-1, 1, size)
        return 1 + SHIFT * (np.sign(drawn) if i % 2 else drawn)

    cases = [replace(case, rho=case.rho * float(shifts(i, 1)[0])) for i in range(NEARBY)]
    if case.critical:
        begin = [1e-3 * case.rho * rng.normal(size=len(here)) for _ in cases]
    else:
        begin = [here * shifts(i // 2, len(here)) for i in range(NEARBY)]
    return cases, begin
