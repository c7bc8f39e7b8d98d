"""What the measurements mean: at a critical point or near a saddle, hallucinated or not, moving or not."""

from __future__ import annotations

import math

from samdiag.types import Estimate, Measurements
from samdiag.verdicts import thresholds as t


def is_critical(m: Measurements) -> bool:
    """Whether |g| cannot be told from 0: within its rounding error."""
    return m.grad_norm.value is not None and m.grad_norm.value <= max(m.grad_norm.error, 1e-300)


def was_cut(m: Measurements) -> bool:
    """Whether the solver ended before the ends were known: their bars reach to the bounds on the whole spectrum."""
    return m.solver is not None and m.solver.stopped not in ("converged", "decided") and not m.spectrum_complete


def run_update_ratio(m: Measurements) -> Estimate:
    """The update's norm over the plain update's, for the update that is run: mini-batches' where they were measured."""
    return m.update_ratio if m.batch_update is None else m.batch_update.update_ratio


def run_loss_change(m: Measurements) -> Estimate:
    """f(x+) − f(x) for the ascent that is run: the mean over mini-batches where they were measured."""
    return m.loss_change if m.batch_update is None else m.batch_update.loss_change


def run_gradient_ratio(m: Measurements) -> Estimate:
    """‖g+‖/‖g‖ likewise."""
    return m.gradient_ratio if m.batch_update is None else m.batch_update.gradient_ratio


def run_shifted_norm(m: Measurements) -> float | None:
    """Norm of the shifted gradient likewise."""
    return (m.perturbed_grad_norm if m.batch_update is None else m.batch_update.update_norm).value


def run_batches(m: Measurements) -> str:
    """Whose shifted gradient the verdict speaks of, for its message; empty for full batches."""
    return "" if m.batch_update is None else f" in the mean over batches of {m.batch_update.size}"


def is_hallucination_candidate(m: Measurements) -> bool | None:
    """Whether the shifted gradient vanishes although the gradient does not; None when the error bars leave it open.

    Judged on the update that is run: with mini-batches the expectation over batches, not the shift of the full
    gradient.

    Source: PARK Def. 2.1; theory B6.
    """
    r = run_update_ratio(m)
    if is_critical(m) or r.value is None or m.perturbation_norm == 0:
        return False
    if r.high < t.HALLUCINATION_RATIO:
        return True
    return None if r.low < t.HALLUCINATION_RATIO and r.value < t.HALLUCINATION_RATIO else False


def is_hallucinated(m: Measurements) -> bool:
    """The whole signature: the shifted gradient vanishes, and the gradient survives where the update comes to rest.

    Where the SAM Jacobian predicts the fixed point, |∇f| there decides: in a linear trap g and g+ vanish together.
    Elsewhere the perturbed point must not lie higher (B6): where it does for certain, a run may only be passing a zero
    of the shifted gradient on its way into a saddle. f(x+) < f(x) is no part of the definition: between two wells of
    different depth x+ is the shallower one's minimum as often, and a ReLU network whose units are all off at x+ has a
    minimum there in its last bias.

    Source: PARK Def. 2.1; theory B3, B4, B6.
    """
    if is_hallucination_candidate(m) is not True:
        return False
    if predicts_fixed_point(m):
        return (m.surviving_gradient or 0.0) >= t.SURVIVES
    return run_loss_change(m).low <= 0


def predicts_fixed_point(m: Measurements) -> bool:
    """Whether the SAM Jacobian says where the update comes to rest: all of it is known, or the update is zero here.

    Source: theory B3.
    """
    exact = m.spectrum_complete or run_update_ratio(m).high < t.EXACT_ZERO
    return m.surviving_gradient is not None and exact


def progress(m: Measurements) -> float | None:
    """Share of the remaining loss that SAM's present pace takes off within HORIZON steps; None when it cannot be told.

    Needs lr and a known lower bound of the loss.
    """
    if m.lookahead_loss is None or m.loss_lower_bound is None or m.loss.value is None:
        return None
    return _share(m, m.loss.value - m.lookahead_loss)


def _share(m: Measurements, gain: float) -> float:
    """What a gain of the next steps comes to within HORIZON, as a share of the remaining loss; its bound is known."""
    left = (m.loss.value or 0.0) - (m.loss_lower_bound or 0.0)
    return gain / m.lookahead_steps * t.HORIZON / left if left > 0 else 0.0


def _plain_share(m: Measurements) -> float:
    """The same of plain steps, at the lower end of its error; 0 where it cannot be told."""
    if m.loss.value is None or m.lookahead_loss_sgd is None or m.loss_lower_bound is None:
        return 0.0
    return _share(m, m.loss.value - m.lookahead_loss_sgd - 2.0 * m.lookahead_error_sgd)


def _goes_down(m: Measurements) -> bool:
    """Whether the next steps take off PROGRESS of the remaining loss within HORIZON, beyond the trial's noise."""
    share = progress(m)
    return share is not None and share - _noise_share(m) >= t.PROGRESS


def keeps_pace(m: Measurements) -> bool:
    """Whether the next steps take off PROGRESS of the remaining loss within HORIZON, and are not SLOWDOWN times slower
    than plain ones.
    """
    return _goes_down(m) and not is_outpaced(m)


def is_outpaced(m: Measurements) -> bool:
    """Whether plain next steps lower the loss SLOWDOWN times as much as SAM's, beyond the noise of both trials."""
    if m.loss.value is None or m.lookahead_loss is None or m.lookahead_loss_sgd is None:
        return False
    gain = m.loss.value - m.lookahead_loss + 2.0 * m.lookahead_error
    plain = m.loss.value - m.lookahead_loss_sgd - 2.0 * m.lookahead_error_sgd
    return plain > 0 and gain * t.SLOWDOWN < plain


def is_seen_slowed(m: Measurements) -> bool:
    """Whether a long trial says so, and plain steps take off PROGRESS of the remaining loss within HORIZON."""
    telling = m.lookahead_steps >= t.LONG_TRIAL and not is_small_loss(m)
    return telling and is_outpaced(m) and _plain_share(m) >= t.PROGRESS


def goes_on_falling(m: Measurements) -> bool:
    """Whether a trial of LONG_TRIAL real steps or more took off PROGRESS of the remaining loss within HORIZON."""
    return m.lookahead_steps >= t.LONG_TRIAL and _goes_down(m)


def stands_still(m: Measurements) -> bool:
    """Whether a trial of LONG_TRIAL real steps or more made no progress worth the name; False where none was so long.

    Shorter ones, and the few noiseless steps of a full-batch run, cannot see an escape that grows exponentially.
    """
    share = progress(m)
    return share is not None and m.lookahead_steps >= t.LONG_TRIAL and share + _noise_share(m) < t.PROGRESS


def is_seen_stuck(m: Measurements) -> bool:
    """Whether in a long trial of the real update SAM went nowhere where plain steps made twice PROGRESS."""
    return stands_still(m) and _plain_share(m) >= 2.0 * t.PROGRESS


def lowers_loss(m: Measurements) -> bool | None:
    """Whether the next SAM steps lower the loss by more than rounding; None without lr or within the trial's noise."""
    if m.lookahead_loss is None or m.loss.value is None:
        return None
    gain = m.loss.value - m.lookahead_loss
    if abs(gain) <= 2.0 * m.lookahead_error and m.lookahead_error > 0:  # two standard errors
        return None
    return gain > max(m.loss_change.error, 1e-12 * abs(m.loss.value))


def decay_outweighs(m: Measurements) -> bool:
    """Whether weight decay is stronger than every curvature: the weights go to 0, whatever the loss does."""
    curvatures = (abs(e.value) + e.spread() for e in (m.lambda_max, m.lambda_min) if e.value is not None)
    return m.weight_decay > max(curvatures, default=math.inf)


def is_small_loss(m: Measurements) -> bool:
    return m.loss_lower_bound is not None and (m.loss.value or 0.0) - m.loss_lower_bound <= t.SMALL_LOSS


def is_stalled(m: Measurements) -> bool:
    """Whether nothing moves and nothing would: a critical point, or no pace worth the name and no gradient either.

    A run whose learning rate is tiny makes no progress within HORIZON steps and is no minimum for it: the gain along
    the gradient, |g|²/(2 uᵀHu), must be small against the remaining loss as well.
    """
    if is_critical(m) or is_small_loss(m):
        return True
    share = progress(m)
    return share is not None and share + _noise_share(m) < t.PROGRESS and not _gradient_could_gain(m)


def _noise_share(m: Measurements) -> float:
    """Two standard errors of `progress`."""
    return _share(m, 2.0 * m.lookahead_error)


def _gradient_could_gain(m: Measurements) -> bool:
    """Whether the parabola along the gradient falls by more than PROGRESS of the remaining loss, or has no floor."""
    curvature, norm = m.directional_curvature.value, m.grad_norm.value or 0.0
    left = (m.loss.value or 0.0) - (m.loss_lower_bound or 0.0)
    scale = max(curvature or 0.0, 1e-3 * (m.lambda_max.value or 0.0))  # flat or falling: as far as a gentle slope goes
    return scale <= 0 or norm**2 / (2.0 * scale) > t.PROGRESS * left


def leaving_is_worth_it(m: Measurements) -> bool:
    """Whether a captured direction costs anything: SAM stands still, and SGD would leave within HORIZON.

    A nearly finished run is captured too (rho_eff grows as |g| falls) and goes on to lower loss in the other
    directions: the capture test alone would be a false alarm. Graded only where the loss has a known lower bound;
    elsewhere captured is captured. The lr is at least a usable one (see `_usable_lr`), and progress is scaled to it.
    Without lr or next steps the two time scales are compared directly: loss over progress g·g+ against
    EXITS_NEEDED/|lambda_min|.
    """
    if m.loss_lower_bound is None or m.loss.value is None or m.lambda_min.value is None:
        return True
    left = m.loss.value - m.loss_lower_bound
    if left <= t.SMALL_LOSS:
        return False
    lam = abs(m.lambda_min.value)
    if m.lr is None or (m.lookahead_loss is None and not is_critical(m)):
        norm, shifted, cosine = (
            m.grad_norm.value or 0.0,
            m.perturbed_grad_norm.value or 0.0,
            m.gradient_cosine.value or 0.0,
        )
        return left * lam > t.EXITS_NEEDED * norm * shifted * cosine
    share = progress(m)
    pace = (m.step_size or 0.0) / (1.0 - m.momentum)
    usable = max(pace, _usable_lr(m))
    still = is_critical(m) or (share is not None and share * usable / pace < t.PROGRESS)
    return still and usable * lam * t.HORIZON >= t.EXITS_NEEDED


def _usable_lr(m: Measurements) -> float:
    """A learning rate that gradient descent could use here: a schedule's last lr near 0 makes no minimum of a saddle.

    USABLE_EDGE of the stability edge 2/|lambda|, of the end of larger modulus; with it |lambda_min| counts from 5 % of
    lambda_max.
    """
    lam = max(m.lambda_max.value or 0.0, abs(m.lambda_min.value or 0.0))
    return t.USABLE_EDGE * 2.0 / lam if lam > 0 else 0.0


def is_near_saddle(m: Measurements) -> bool:
    """Whether |g| is on the scale at which the negative curvature matters.

    SAM: rho_eff|lambda_min| ≥ NEAR_SADDLE, or a run that stands still at a small depth. Depth is the share of the
    remaining loss that |g|²/(2|lambda_min|) is, where that is known; it alone counts for USAM, whose radius says
    nothing about |g|. Elsewhere USAM's shifted gradient must point uphill, or the next steps not lower the loss, as
    where a captured direction is climbed.

    Source: theory F4.
    """
    lam = m.lambda_min.value
    if lam is None or lam >= 0:
        return False
    if is_critical(m):
        return True
    shallow = None
    if m.loss_lower_bound is not None and m.loss.value is not None:
        shallow = (m.grad_norm.value or 0.0) ** 2 / (2 * abs(lam)) <= t.DEPTH * (m.loss.value - m.loss_lower_bound)
    if m.variant != "usam":
        radius = m.bottom_directions[0].effective_radius if m.bottom_directions else m.effective_radius
        return radius * abs(lam) >= t.NEAR_SADDLE or (shallow is True and is_stalled(m))
    return lowers_loss(m) is False or m.gradient_cosine.high < 0 if shallow is None else shallow


def shown(value: float | None, digits: int = 3) -> str:
    """A number for a message, with that many significant digits; "?" where it is not known."""
    return "?" if value is None else f"{value:.{digits}g}"
