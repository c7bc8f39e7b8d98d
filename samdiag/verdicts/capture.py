"""The fate of negative directions: captured, free, or too close to call; and of all of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from samdiag.theory.edge import bounce_gradient
from samdiag.theory.saddle import (
    capture_radius,
    escape_factor,
    escape_rate,
    fastest_escape_rate,
    freeing_momentum,
    momentum_frees_maximum,
    mu_range,
)
from samdiag.types import Direction, Measurements
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.foresight import foreseen, foreseen_slowdown
from samdiag.verdicts.reading import is_seen_stuck, stands_still


class Fate(Enum):
    """What becomes of a negative direction."""

    CAPTURED = "captured"
    FREE = "free"
    MARGINAL = "marginal"  # the error bars, the margin of the linear test, or what |g| will become leave it open


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeDirection:
    """One direction along which both the loss and its decayed form curve down.

    Attributes:
        radius: effective radius along it at the gradient scale of now (or of the bounce, where that is larger).
        rate: escape rate −mu now, in units of 1/eta; negative: captured.
        doubt: why the fate is marginal; empty otherwise.
        settled: the forecast decided what the linear tests leave open or cannot see.
    """

    direction: Direction
    radius: float
    fate: Fate
    rate: float
    doubt: str = ""
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """The negative directions together.

    Attributes:
        negatives: those whose interval lies below −wd, most negative first.
        sign_uncertain: lambda_min's interval (shifted by weight decay) contains 0.
        captured: every negative direction is captured, or what is not seen is too slow to count.
        decided: whether `captured` could be said either way, and how fast a free saddle is left.
        slowdown: SGD's escape exponent over the best that can be kept (a lower bound when the spectrum is incomplete);
            infinite when captured with a complete spectrum, None without negative directions.
        binding: the captured direction that would be freed last, i.e. of smallest magnitude.
        by_forecast: the linear tests alone would not have said so.
        by_trial: nor would they; a long trial of the real update says that nothing leaves.
    """

    negatives: tuple[NegativeDirection, ...]
    sign_uncertain: bool
    captured: bool
    decided: bool
    slowdown: float | None
    binding: NegativeDirection | None
    by_forecast: bool = False
    by_trial: bool = False


def read_capture(m: Measurements) -> Capture:
    """The fate of every negative direction, and of all of them together.

    Where the run was simulated on the local quadratic, its outcome settles what the linear tests leave open, and
    overrules a capture that it leaves. A long trial of the real update that goes nowhere settles it too.

    Source: theory A2 (smallest magnitude binds), A4 (graded), A5 (|g| test), A6 (bounce), A8 (momentum).
    """
    bars = [d for d in m.bottom_directions if d.eigenvalue.high + m.weight_decay < 0]
    negatives = tuple(_judge(m, d, bars) for d in bars)
    e = m.lambda_min
    uncertain = e.low + m.weight_decay <= 0 <= e.high + m.weight_decay
    if not negatives or not m.self_check.passed:
        return Capture(
            negatives=(), sign_uncertain=uncertain, captured=False, decided=not uncertain, slowdown=None, binding=None
        )
    fates = {n.fate for n in negatives}
    all_captured = fates == {Fate.CAPTURED}
    leaves, stays = foreseen(m) == "leaves", foreseen(m) == "stays"
    if leaves and not any(n.fate is Fate.FREE and not n.settled for n in negatives):
        slowdown = foreseen_slowdown(m)
    else:
        slowdown = _slowdown(m, negatives)
    practically = _is_practically_captured(m, slowdown)
    held = all_captured and not leaves and (m.spectrum_complete or practically)
    tried = (
        not leaves and Fate.FREE not in fates and not held and is_seen_stuck(m) and _is_telling(m, t.PRACTICAL_CAPTURE)
    )
    return Capture(
        negatives=negatives,
        sign_uncertain=uncertain,
        captured=held or tried or (stays and practically),
        decided=all_captured or tried or (Fate.FREE in fates and _is_graded(m, negatives, slowdown)),
        by_trial=tried,
        by_forecast=any(n.settled for n in negatives) or (all_captured and leaves) or (stays and not all_captured),
        slowdown=slowdown,
        binding=min(
            (n for n in negatives if n.fate is Fate.CAPTURED),
            key=lambda n: abs(n.direction.eigenvalue.value or 0.0),
            default=None,
        ),
    )


def capture_threshold(n: NegativeDirection, weight_decay: float) -> float:
    """Effective radius at which this direction would be captured."""
    return capture_radius(n.direction.eigenvalue.value or math.nan, weight_decay)


def lasting_scale(m: Measurements, direction: Direction, *, bounce: bool = True) -> float:
    """What divides rho along `direction` once the gradient of the other directions has died down.

    Full-batch SAM approaching a saddle loses the gradient along positive directions, and rho_eff = rho/|g| grows: in
    2400 simulated saddles every run left whose own |q·g| was above the threshold, and 188 of 263 stayed whose own
    gradient and bounce were below it, however large |g| was at the time.

    Args:
        m: the measurements.
        direction: the negative direction.
        bounce: whether the gradient of the bounce along lambda_max counts as lasting (A6).
    """
    if m.variant == "usam":
        return 1.0
    stretch = direction.effective_radius / m.effective_radius if 0 < m.effective_radius < math.inf else 1.0
    own = max(abs(direction.offset), _bounce(m) if bounce else 0.0)
    return math.sqrt(stretch * own**2 + m.ascent_noise) if math.isfinite(own) else math.inf


def _bounce(m: Measurements) -> float:
    """Gradient norm that SAM's bounce along lambda_max keeps up; 0 without lr or a positive lambda_max, or for ASAM."""
    lam = m.lambda_max.value
    if m.variant not in ("sam", "gsam") or m.step_size is None or lam is None or lam <= 0:
        return 0.0
    return bounce_gradient(lam, m.rho, m.step_size, m.momentum, nesterov=m.nesterov)


def _radius_now(m: Measurements, direction: Direction) -> float:
    """rho_eff along `direction`; inside the bounce cycle, where |g| still grows, at the cycle's gradient.

    Source: theory A6.
    """
    if m.variant == "usam" or not math.isfinite(m.effective_radius) or m.effective_radius <= 0:
        return direction.effective_radius
    scale, now, cycle = m.rho / m.effective_radius, m.grad_norm.value or 0.0, _bounce(m)
    if cycle <= now:
        return direction.effective_radius
    return direction.effective_radius * scale / math.sqrt(max(scale**2 - now**2, 0.0) + cycle**2)


def _radius_in_swing(m: Measurements, direction: Direction, all_negative: list[Direction]) -> float:
    """rho_eff along `direction` while SAM swings about another captured one, |x_k| ≤ eta|lam_k|rho about a maximum.

    Source: theory A5, A8 (the trap's extent at finite steps; simulated).
    """
    others = [abs(d.eigenvalue.value or 0.0) for d in all_negative if d is not direction]
    finite = 0 < m.effective_radius < math.inf
    if m.variant not in ("sam", "gsam") or m.step_size is None or not others or not finite:
        return direction.effective_radius
    swing = m.step_size * max(others) ** 2 * m.rho
    scale = m.rho / m.effective_radius
    return direction.effective_radius * scale / math.hypot(scale, swing)


def _judge(m: Measurements, direction: Direction, all_negative: list[Direction]) -> NegativeDirection:
    now = _radius_now(m, direction)
    lasting = now
    if m.variant != "usam" and math.isfinite(now) and now > 0:
        scale = lasting_scale(m, direction)
        stretch = direction.effective_radius / m.effective_radius if m.effective_radius > 0 else 1.0
        lasting = max(now, m.rho * stretch / scale if scale > 0 else math.inf)
    fate, doubt, freed = _fate(m, direction, now), "", False
    if fate is Fate.MARGINAL:
        lam = abs(direction.eigenvalue.value or 0.0)
        doubt = f"rho_eff·|lambda| = {now * lam:.4g} cannot be told from 1"
    elif fate is Fate.FREE and _fate(m, direction, lasting) is not Fate.FREE:
        fate, doubt = Fate.MARGINAL, "free now, but captured once the gradient of the other directions has died down"
    elif fate is Fate.CAPTURED and _fate(m, direction, _radius_in_swing(m, direction, all_negative)) is not fate:
        fate, doubt = Fate.MARGINAL, "the swing along a more negative direction may keep |g| large enough to free it"
    elif fate is Fate.CAPTURED and _momentum_may_free(m, direction):
        freed = _is_clear_maximum(m, direction, all_negative)
        fate = Fate.FREE if freed else Fate.MARGINAL
        doubt = "" if freed else "momentum may carry SAM out (docs/theory.md A8)"
    outcome, settled = foreseen(m), False
    if outcome is not None and _is_open_to_forecast(m, direction, fate, outcome, freed=freed):
        fate, doubt, settled = *_after_forecast(outcome, doubt), True
    if m.variant == "gsam" and fate is Fate.FREE:
        fate, doubt = Fate.MARGINAL, "SAM would leave, but GSAM's orthogonal part holds some saddles that SAM leaves"
    rate = escape_rate(direction.eigenvalue.value or 0.0, now, m.weight_decay)
    if fate is Fate.FREE and rate <= 0:  # freed by momentum: as fast as without SAM
        rate = abs(direction.eigenvalue.value or 0.0) - m.weight_decay
    return NegativeDirection(direction=direction, radius=now, fate=fate, rate=rate, doubt=doubt, settled=settled)


def _is_open_to_forecast(m: Measurements, direction: Direction, fate: Fate, outcome: str, *, freed: bool) -> bool:
    """Whether this outcome may change this fate.

    It always settles a marginal one. A captured direction may stay so while the run leaves along another. A free one
    whose own gradient keeps it free leaves whatever the others do: an outward motion beyond |q·g| = rho|lam| never
    turns (`theory.quadratic.exit_gradient`).

    Source: theory A5.
    """
    if fate is Fate.MARGINAL:
        return True
    if fate is Fate.CAPTURED:
        return outcome == "open"
    own = abs(direction.offset)
    by_itself = not freed and own > 0 and _fate(m, direction, m.rho / own) is Fate.FREE
    return outcome != "leaves" and not by_itself


def _after_forecast(outcome: str, doubt: str) -> tuple[Fate, str]:
    """The fate by that outcome, and why it is marginal."""
    if outcome == "open":
        told = "runs on the local quadratic from nearby starts and radii (±5 %) disagree"
        return Fate.MARGINAL, f"{doubt}; {told}" if doubt else told
    return (Fate.CAPTURED if outcome == "stays" else Fate.FREE), ""


def _fate(m: Measurements, direction: Direction, radius: float) -> Fate:
    """The linear test at this radius, over the eigenvalue's error bar and the test's margin."""
    margin = t.MARGIN_USAM if m.variant == "usam" else t.MARGIN_NORMALISED
    norm, error, spread = m.grad_norm.value or 0.0, m.grad_norm.sampling_error or 0.0, 0.0
    if m.variant != "usam" and norm > 0 and 0 < m.effective_radius < math.inf:
        scale = (
            m.rho / m.effective_radius
        )  # √(|g|² + noise), |Tg| in place of |g| for ASAM, with the same relative error
        share = norm**2 / scale**2 if m.variant in ("sam", "gsam") else max(1.0 - m.ascent_noise / scale**2, 0.0)
        spread = 2.0 * error / norm * share  # of what divides rho
    e = direction.eigenvalue
    factors = (1 - margin) / (1 + spread), (1 + margin) / (1 - spread) if spread < 1 else math.inf
    radii = [radius * factor if radius > 0 else 0.0 for factor in factors]
    ranges = [mu_range(e.low, e.high, r, m.weight_decay) for r in radii]
    if min(low for low, _ in ranges) > 0:
        return Fate.CAPTURED
    return Fate.FREE if max(high for _, high in ranges) < 0 else Fate.MARGINAL


def _momentum_may_free(m: Measurements, direction: Direction) -> bool:
    """gamma > 1 − eta|lam| with full batches: necessary for momentum to carry SAM out of a captured saddle.

    Source: theory A8 for maxima; in simulated saddles 1 of 505 captured runs left below it, 82 of 118 above.
    """
    if m.variant == "usam" or m.step_size is None or m.momentum <= 0 or m.ascent_noise > 0:
        return False
    gamma = m.momentum + t.MOMENTUM_MARGIN
    return momentum_frees_maximum(direction.eigenvalue.value or 0.0, m.step_size, gamma, nesterov=m.nesterov)


def _is_clear_maximum(m: Measurements, direction: Direction, all_negative: list[Direction]) -> bool:
    """A pure maximum with one eigenvalue, and momentum well beyond A8's threshold: it leaves from everywhere.

    Source: theory A8 (D, simulated: from every start 0.08 above the threshold in one dimension).
    """
    lam = abs(direction.eigenvalue.value or 0.0)
    same = all(abs(abs(d.eigenvalue.value or 0.0) - lam) <= 1e-3 * lam for d in all_negative)
    clear = m.momentum - freeing_momentum(lam, m.step_size or 0.0, nesterov=m.nesterov) >= t.MOMENTUM_CLEAR
    return m.spectrum_complete and m.lambda_max.high < 0 and same and clear


def _slowdown(m: Measurements, negatives: tuple[NegativeDirection, ...]) -> float:
    """SGD's escape exponent per step over the best that SAM can keep, hidden directions included.

    Source: theory A4; with lr the exponents are log r+ of A3, which momentum bends.
    """
    sgd = abs(negatives[0].direction.eigenvalue.value or 0.0) - m.weight_decay
    best = max((n.rate for n in negatives if n.fate is Fate.FREE), default=0.0)
    kept = max(best, 0.0 if m.spectrum_complete else _hidden_rate(m, negatives))
    if kept <= 0:
        return math.inf
    if m.step_size is None:
        return sgd / kept
    exponents = [math.log(escape_factor(rate, m.step_size, m.momentum, nesterov=m.nesterov)) for rate in (sgd, kept)]
    return exponents[0] / exponents[1] if exponents[1] > 0 else sgd / kept  # steps too small to tell r+ from 1


def _is_graded(m: Measurements, negatives: tuple[NegativeDirection, ...], slowdown: float) -> bool:
    """Whether the marginal directions, were they free, would leave the grade (slowed down or not) as it is."""

    if all(n.fate is not Fate.MARGINAL for n in negatives):
        return True

    def freed(n: NegativeDirection) -> NegativeDirection:
        plain = abs(n.direction.eigenvalue.value or 0.0) - m.weight_decay
        return replace(n, fate=Fate.FREE, rate=n.rate if n.rate > 0 else plain) if n.fate is Fate.MARGINAL else n

    best = _slowdown(m, tuple(freed(n) for n in negatives))
    return (slowdown < t.SLOWDOWN) is (min(best, slowdown) < t.SLOWDOWN)


def _hidden_rate(m: Measurements, negatives: tuple[NegativeDirection, ...]) -> float:
    """Upper bound of the escape rate over negative eigenvalues between the last one found and 0."""
    last = m.bottom_directions[-1]
    if last.eigenvalue.low > 0 and last.eigenvalue.converged:
        return 0.0
    largest = abs(min(last.eigenvalue.value or 0.0, 0.0)) or abs(negatives[0].direction.eigenvalue.value or 0.0)
    return fastest_escape_rate(largest, min(n.radius for n in negatives), m.weight_decay)


def _is_practically_captured(m: Measurements, slowdown: float) -> bool:
    """Whether what is free, or what an incomplete spectrum leaves open, is too slow to count.

    A trial of the real update that went nowhere, long enough for the fastest escape that may be hidden, has seen it.
    """
    if m.lambda_min.value is None or slowdown < t.SLOWDOWN:
        return False
    if stands_still(m) and _is_telling(m, slowdown):
        return True
    return slowdown >= t.PRACTICAL_CAPTURE and _steps_to_leave(m, slowdown) >= t.HORIZON


def _steps_to_leave(m: Measurements, slowdown: float) -> float:
    """SGD needs EXITS_NEEDED e-foldings of 1/(eta|lambda_min|) steps each; SAM that many times `slowdown`.

    Infinite without lr.
    """
    if m.step_size is None:
        return math.inf
    pace = m.step_size * abs(m.lambda_min.value or 0.0) / (1.0 - m.momentum)
    return slowdown * t.EXITS_NEEDED / pace if pace > 0 else math.inf


def _is_telling(m: Measurements, slowdown: float) -> bool:
    """Whether the trial of the next steps was long enough to see an escape that much slower than SGD's."""
    return m.lookahead_steps >= min(_steps_to_leave(m, slowdown), t.HORIZON)
