"""What the measurements mean, read once: near a critical point or not, captured or free, moving or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from samdiag.theory.edge import bounce_gradient
from samdiag.theory.saddle import (
    capture_radius,
    escape_rate,
    fastest_escape_rate,
    momentum_frees_maximum,
    shifted_eigenvalue,
)
from samdiag.types import Direction, Estimate, Measurements
from samdiag.verdicts import thresholds as t


class Fate(Enum):
    """What becomes of a negative direction."""

    CAPTURED = "captured"
    FREE = "free"
    MARGINAL = "marginal"  # the error bars, or the margin of the linear test, contain the boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeDirection:
    direction: Direction
    radius: float  # effective radius along it, at the gradient scale that the dynamics keeps up
    fate: Fate
    rate: float  # escape rate −mu, 1/eta units; negative: captured


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """The negative directions together.

    Attributes:
        negatives: those whose interval excludes 0, most negative first.
        sign_uncertain: lambda_min's interval contains 0.
        captured: every negative direction is captured, or what is not seen is slower than SGD by PRACTICAL_CAPTURE.
        decided: whether `captured` could be said either way.
        slowdown: SGD's escape rate over the best rate that can be kept (a lower bound when the spectrum is
            incomplete); infinite when captured with a complete spectrum, None without negative directions.
        binding: the captured direction that would be freed last, i.e. of smallest magnitude.
    """

    negatives: tuple[NegativeDirection, ...]
    sign_uncertain: bool
    captured: bool
    decided: bool
    slowdown: float | None
    binding: NegativeDirection | None


def is_critical(m: Measurements) -> bool:
    """Whether |g| cannot be told from 0: within its rounding error."""
    return m.grad_norm.value is not None and m.grad_norm.value <= max(m.grad_norm.error, 1e-300)


def is_hallucination_candidate(m: Measurements) -> bool | None:
    """Whether the shifted gradient vanishes although the gradient does not; None when the error bars leave it open.

    Source: PARK Def. 2.1; theory B6.
    """
    r = m.update_ratio
    if is_critical(m) or r.value is None or m.perturbation_norm == 0:
        return False
    if r.high < t.HALLUCINATION_RATIO:
        return True
    return None if r.low < t.HALLUCINATION_RATIO and r.value < t.HALLUCINATION_RATIO else False


def is_downhill_hallucination(m: Measurements) -> bool:
    """The whole signature: the shifted gradient vanishes, and the perturbed point does not lie higher.

    Where f(x+) is higher for certain, a run is only passing a zero of the shifted gradient on its way into a saddle,
    and the saddle verdicts apply.

    Source: theory B6.
    """
    return is_hallucination_candidate(m) is True and m.loss_change.low <= 0


def progress(m: Measurements) -> float | None:
    """Share of the remaining loss that SAM's present pace takes off within HORIZON steps; None when it cannot be told.

    Needs lr and a known lower bound of the loss. The pace is that of the lookahead steps of lr/(1+gamma), scaled to
    momentum's long-run step lr/(1−gamma).
    """
    if m.lookahead_loss is None or m.loss_lower_bound is None or m.loss.value is None:
        return None
    left = m.loss.value - m.loss_lower_bound
    if left <= 0:
        return 0.0
    per_step = (m.loss.value - m.lookahead_loss) / m.lookahead_steps * (1.0 + m.momentum) / (1.0 - m.momentum)
    return per_step * t.HORIZON / left


def lowers_loss(m: Measurements) -> bool | None:
    """Whether the next SAM steps lower the loss by more than rounding; None without lr."""
    if m.lookahead_loss is None or m.loss.value is None:
        return None
    return m.loss.value - m.lookahead_loss > max(m.loss_change.error, 1e-12 * abs(m.loss.value))


def is_small_loss(m: Measurements) -> bool:
    return m.loss_lower_bound is not None and (m.loss.value or 0.0) - m.loss_lower_bound <= t.SMALL_LOSS


def is_stalled(m: Measurements) -> bool:
    """Whether nothing moves: an exact critical point, or less than PROGRESS of the remaining loss within HORIZON
    steps.
    """
    if is_critical(m) or is_small_loss(m):
        return True
    share = progress(m)
    return share is not None and share < t.PROGRESS


def leaving_is_worth_it(m: Measurements) -> bool:
    """Whether a captured direction costs anything: SAM stands still, and SGD would leave within HORIZON.

    A nearly finished run is captured too (rho_eff grows as |g| falls) and goes on to lower loss in the other
    directions: the capture test alone would be a false alarm. Graded only where the loss has a known lower bound;
    elsewhere captured is captured. Without lr the two time scales are compared directly: loss over progress g·g+
    against EXITS_NEEDED/|lambda_min|.
    """
    if m.loss_lower_bound is None or m.loss.value is None or m.lambda_min.value is None:
        return True
    left = m.loss.value - m.loss_lower_bound
    if left <= t.SMALL_LOSS:
        return False
    lam = abs(m.lambda_min.value)
    if m.lr is None:
        norm, shifted, cosine = (
            m.grad_norm.value or 0.0,
            m.perturbed_grad_norm.value or 0.0,
            m.gradient_cosine.value or 0.0,
        )
        return left * lam > t.EXITS_NEEDED * norm * shifted * cosine
    share = progress(m)
    still = is_critical(m) or (share is not None and share < t.PROGRESS)
    return still and m.lr * lam / (1.0 - m.momentum) * t.HORIZON >= t.EXITS_NEEDED


def is_near_saddle(m: Measurements) -> bool:
    """Whether |g| is on the scale at which the negative curvature matters.

    SAM: rho_eff|lambda_min| ≥ NEAR_SADDLE. USAM's radius says nothing about |g|: there the loss depth
    |g|²/(2|lambda_min|) must be a small share of the remaining loss, where that is known.

    Source: theory F4.
    """
    lam = m.lambda_min.value
    if lam is None or lam >= 0:
        return False
    if is_critical(m):
        return True
    if m.variant != "usam":
        return m.effective_radius * abs(lam) >= t.NEAR_SADDLE
    if m.loss_lower_bound is None or m.loss.value is None:
        return False
    return (m.grad_norm.value or 0.0) ** 2 / (2 * abs(lam)) <= t.DEPTH * (m.loss.value - m.loss_lower_bound)


def sustained_factor(m: Measurements) -> float:
    """How much larger than now the gradient scale is on the full-batch bounce along lambda_max; 1 where it is not.

    Inside that cycle |g| grows until the bounce, so a direction is captured for good only if it is captured there.

    Source: theory A6.
    """
    lam = m.lambda_max.value
    if m.variant == "usam" or m.lr is None or lam is None or lam <= 0 or not math.isfinite(m.effective_radius):
        return 1.0
    scale = m.rho / m.effective_radius if m.effective_radius > 0 else math.inf
    cycle = bounce_gradient(lam, m.rho, m.lr, m.momentum)
    now = m.grad_norm.value or 0.0
    grown = math.sqrt(max(scale**2 - now**2, 0.0) + max(now, cycle) ** 2) if math.isfinite(cycle) else math.inf
    return grown / scale if scale > 0 else 1.0


def read_capture(m: Measurements) -> Capture:
    """The fate of every negative direction, and of all of them together.

    Source: theory A2 (smallest magnitude binds), A4 (graded), A5 (|g| test), A6 (bounce), A8 (pure maximum).
    """
    negatives = tuple(_judge_direction(m, d) for d in m.bottom_directions if d.eigenvalue.high < 0)
    uncertain = _sign_uncertain(m)
    if not negatives or not m.self_check.passed:
        return Capture(
            negatives=(), sign_uncertain=uncertain, captured=False, decided=not uncertain, slowdown=None, binding=None
        )
    fates = {n.fate for n in negatives}
    sgd = abs(negatives[0].direction.eigenvalue.value or 0.0) - m.weight_decay
    hidden = 0.0 if m.spectrum_complete else _hidden_rate(m, negatives)
    best = max((n.rate for n in negatives if n.fate is Fate.FREE), default=0.0)
    kept = max(best, hidden)
    slowdown = sgd / kept if kept > 0 else math.inf
    all_captured = fates == {Fate.CAPTURED}
    captured = all_captured and (m.spectrum_complete or _is_practically_captured(m, slowdown))
    return Capture(
        negatives=negatives,
        sign_uncertain=uncertain,
        captured=captured,
        decided=Fate.FREE in fates or all_captured,
        slowdown=slowdown,
        binding=min(
            (n for n in negatives if n.fate is Fate.CAPTURED),
            key=lambda n: abs(n.direction.eigenvalue.value or 0.0),
            default=None,
        ),
    )


def _is_practically_captured(m: Measurements, slowdown: float) -> bool:
    """Whether what an incomplete spectrum leaves open is too slow to count.

    SGD needs EXITS_NEEDED e-foldings of 1/(eta|lambda_min|) steps each; SAM that many times `slowdown`.
    """
    if slowdown < t.PRACTICAL_CAPTURE or m.lambda_min.value is None:
        return False
    if m.lr is None:
        return True
    pace = m.lr * abs(m.lambda_min.value) / (1.0 - m.momentum)
    return slowdown * t.EXITS_NEEDED / pace >= t.HORIZON


def _sign_uncertain(m: Measurements) -> bool:
    """lambda_min's sign is open: its interval holds 0, or nothing certifies that no smaller eigenvalue was missed."""
    e = m.lambda_min
    return e.low <= 0 <= e.high


def _hidden_rate(m: Measurements, negatives: tuple[NegativeDirection, ...]) -> float:
    """Upper bound of the escape rate over negative eigenvalues between the last one found and 0."""
    last = m.bottom_directions[-1]
    if last.eigenvalue.low > 0:
        return 0.0
    largest = abs(min(last.eigenvalue.value or 0.0, 0.0))
    smallest_radius = min(n.radius for n in negatives)
    return fastest_escape_rate(largest, smallest_radius, m.weight_decay)


def _judge_direction(m: Measurements, direction: Direction) -> NegativeDirection:
    lam = direction.eigenvalue.value or 0.0
    radius = direction.effective_radius / sustained_factor(m)
    if _freed_maximum(m, lam):
        return NegativeDirection(direction=direction, radius=radius, fate=Fate.FREE, rate=abs(lam))
    margin = t.MARGIN_USAM if m.variant == "usam" else t.MARGIN_NORMALISED
    if m.variant != "usam" and m.grad_norm.value and m.grad_norm.sampling_error:
        margin += 2.0 * m.grad_norm.sampling_error / m.grad_norm.value  # the radius is rho over a measured norm
    signs = {
        shifted_eigenvalue(value, radius * factor, m.weight_decay) > 0
        for value in (direction.eigenvalue.low, direction.eigenvalue.high)
        for factor in (1.0 - margin, 1.0 + margin)
    }
    fate = Fate.MARGINAL if len(signs) > 1 else (Fate.CAPTURED if signs.pop() else Fate.FREE)
    return NegativeDirection(
        direction=direction, radius=radius, fate=fate, rate=escape_rate(lam, radius, m.weight_decay)
    )


def _freed_maximum(m: Measurements, lam: float) -> bool:
    """Momentum carries normalised SAM out of a pure maximum (A8): no positive direction at all, full batch."""
    return (
        m.variant == "sam"
        and m.batch_size is None
        and m.lr is not None
        and m.spectrum_complete
        and m.lambda_max.high < 0
        and m.momentum > 0
        and momentum_frees_maximum(lam, m.lr, m.momentum)
    )


def capture_threshold(n: NegativeDirection, weight_decay: float) -> float:
    """Effective radius at which this direction would be captured."""
    return capture_radius(n.direction.eigenvalue.value or math.nan, weight_decay)


def number(e: Estimate) -> float | None:
    """The value alone, for evidence tables."""
    return e.value
