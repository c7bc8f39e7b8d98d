"""Ways out of a saddle as schedules: a smaller rho, plain steps first, a smaller batch or ascent micro-batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from samdiag.advice import batch_size, learning_rate
from samdiag.advice.escape import descent_noise, has_start, steps_of_growth, steps_to_leave
from samdiag.advice.rho import OFF
from samdiag.advice.situation import MIN_BATCH, Situation
from samdiag.remedies import Phase, Prescription, Schedule
from samdiag.theory.prescription import KEPT_FRACTION
from samdiag.theory.saddle import retained_escape_rate

HOLD = 2.0  # times the predicted steps: single runs scatter by about their median (noise starts them)
SGD_MARGIN = 1.5  # times the predicted steps of plain ones: their end is then above the exit gradient in most runs
RETURN = 0.05  # of rho: the exit gradient is at least one at which SAM at this share of it is free
LOOK = "diagnose again when the first phase ends: leaving one trap can lead into another (docs/theory.md B7)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The joint settings that a prescription recommends for leaving.

    Attributes:
        rho, momentum: as recommended, the present ones where nothing is.
        radius: effective radius along lambda_min under them.
        batch: of the descent; None: full batch.
        ascent: new size of the ascent batch where it changes.
    """

    rho: float
    momentum: float
    radius: float
    batch: float | None
    ascent: int | None


def schedules(situation: Situation, p: Prescription, way: Way | None) -> tuple[Schedule | None, tuple[Schedule, ...]]:
    """How to carry out `p` at a saddle, and the other ways that theory allows.

    Plain steps first where rho would have to be nearly 0, where no rho is free, and where the bounds allow the present
    settings although the verdict does not.

    Source: theory D1, D2, D4.
    """
    plain = sgd_then_sam(situation)
    first = _joint(situation, p, way) if way is not None else None
    tiny = way is None or way.rho < OFF * situation.m.rho
    hopeless = first is not None and first.steps is None and situation.m.lr is not None and not _at_once(situation, way)
    chosen = plain if plain is not None and (tiny or hopeless or first is None) else (None if hopeless else first)
    others = (
        micro_batch(situation),
        small_batch(situation),
        plain,
        first if way is not None and not hopeless else None,
    )
    return chosen, tuple(o for o in others if o is not None and chosen is not None and _differs(o, chosen))


def _differs(a: Schedule, b: Schedule) -> bool:
    return a.phases != b.phases and a.kind != b.kind


def _at_once(situation: Situation, way: Way | None) -> bool:
    """Whether the escape direction carries all of the gradient already, so that zero steps are predicted."""
    own = abs(situation.bottom.offset) if situation.bottom is not None else 0.0
    if way is None or not 0 < situation.gradient_at(way.batch) <= own:
        return False
    return steps_of_growth(situation, way.radius, way.momentum) is not None


def _joint(situation: Situation, p: Prescription, way: Way) -> Schedule | None:
    """The joint prescription as phases; None where it changes nothing."""
    m = situation.m
    leave = Phase(
        steps=None,
        rho=way.rho,
        momentum=way.momentum if way.momentum != m.momentum else None,
        batch_size=way.ascent if m.micro_batch is None else None,
        micro_batch=way.ascent if m.micro_batch is not None else None,
    )
    if leave == Phase(steps=None, rho=m.rho):
        return None
    steps = p.escape_steps
    if steps is None and _at_once(situation, way):
        steps = steps_of_growth(situation, way.radius, way.momentum)
    kind = "rho-warm-up" if way.rho < m.rho else ("constant" if leave.micro_batch is None else "micro-batch")
    phases = (leave,) if steps is None else (replace(leave, steps=max(1, math.ceil(HOLD * steps))), leave)
    later = (
        f"; from then on rho may rise again, up to {KEPT_FRACTION:g}·|g|/|lambda_min| as measured then"
        if kind == "rho-warm-up" and m.variant != "usam"
        else ""
    )
    return Schedule(
        kind=kind,
        phases=phases,
        effect=f"{_settings(leave, m.rho)} keeps {_kept(situation, way.radius)} of SGD's escape rate "
        f"(now {_kept(situation, None)}): {_when(steps)}{later}",
        risk=LOOK,
        source="docs/theory.md D1, D4, D5" if kind == "rho-warm-up" else "docs/theory.md D2, D4, D5",
        steps=steps,
    )


def _settings(phase: Phase, present: float) -> str:
    """The phase's settings in words."""
    rho = f"rho {phase.rho:.3g}" if phase.rho != present else f"the present rho {phase.rho:.3g}"
    parts = [f"momentum {phase.momentum:.3g}"] if phase.momentum is not None else []
    parts += [f"batches of {phase.batch_size}"] if phase.batch_size is not None else []
    parts += [f"ascent micro-batches of {phase.micro_batch}"] if phase.micro_batch is not None else []
    return "SAM at " + rho + (" with " + " and ".join(parts) if parts else "")


def _kept(situation: Situation, radius: float | None) -> str:
    """The share of SGD's escape rate along lambda_min at `radius`; None: the present one."""
    bottom = situation.bottom
    assert bottom is not None
    at = bottom.effective_radius if radius is None else radius
    share = retained_escape_rate([bottom.eigenvalue.value or 0.0], at, situation.m.weight_decay)
    return f"{100 * share:.0f} %" if math.isfinite(share) else "none"


def _when(steps: float | None) -> str:
    return (
        "it leaves, in a number of steps that is not predicted"
        if steps is None
        else f"it leaves in about {steps:.0f} steps"
    )


def sgd_then_sam(situation: Situation) -> Schedule | None:
    """Plain steps until q's gradient has grown to G, then SAM at the rho that keeps half of SGD's rate there.

    G is the mean batch gradient, at which the escape direction carries all of it, or the gradient at which RETURN of
    the present rho is free where that is more. rho then is (1 − kappa)G/|lambda_min|, bounded as D1 bounds it. A full
    batch with nothing to start it takes mini-batches whose noise is known. None without lr, a start, or an exit within
    MAX_STEPS.

    Source: theory D4 with mu = lambda_min + wd; D1 at the exit.
    """
    m, bottom = situation.m, situation.bottom
    if bottom is None or m.step_size is None:
        return None
    batch = float(m.batch_size) if m.batch_size else None
    small = None
    if not has_start(situation, batch):
        small = _starting_batch(situation)
        if small is None:
            return None
        batch = float(small)
    leaving = exit_gradient(situation, batch)
    steps = steps_to_leave(situation, radius=0.0, momentum=m.momentum, batch=batch, exit_gradient=leaving)
    if steps is None:
        return None
    rho = rho_at_exit(situation, leaving)
    trap = learning_rate.releasing(situation)
    hold = max(1, math.ceil(SGD_MARGIN * steps))
    return Schedule(
        kind="sgd-then-sam",
        phases=(Phase(steps=hold, rho=0.0, batch_size=small), Phase(steps=None, rho=rho)),
        effect=f"plain steps{f' in batches of {small}' if small else ''} leave in about {steps}: |q·g| then is "
        f"{leaving:.3g}, and SAM at rho {rho:.3g} keeps half of SGD's escape rate there",
        risk=(
            f"below lr {trap:.3g} SAM's bounce holds this very saddle at every rho (A6); " if trap is not None else ""
        )
        + f"plain steps may go to a sharper place, and SAM may be caught again: {LOOK}",
        source="docs/theory.md D4, D1",
        steps=float(steps),
    )


def _starting_batch(situation: Situation) -> int | None:
    """The largest batch that is prescribed to start a full-batch run by its noise; None where no noise is known."""
    m, bottom = situation.m, situation.bottom
    whole = m.population or m.num_samples
    small = max(MIN_BATCH, whole // int(batch_size.MAX_HEATING))
    noisy = bottom is not None and (bottom.noise or 0.0) > 0 and small < whole
    return small if m.batch_size is None and noisy and descent_noise(situation, 0.0, small) > 0 else None


def exit_gradient(situation: Situation, batch: float | None) -> float:
    """|q·g| at which SAM may come back: the mean batch gradient, and enough for RETURN of the present rho.

    The latter no further than where the quadratic along q, |q·g|²/(2|lambda_min|) below the saddle, has used up the
    loss: no gradient is that large, whatever rho would need.

    Source: theory D1, D4.
    """
    m, bottom = situation.m, situation.bottom
    now = situation.gradient_at(batch)
    if bottom is None or m.variant == "usam":
        return now
    per_rho = {name: rho for rho, name in situation.rho_bounds(1.0)}.get("saddle trap", 0.0)
    back = RETURN * m.rho / per_rho if per_rho > 0 else 0.0
    if m.loss_lower_bound is not None and m.loss.value is not None:
        stake = max(m.loss.value - m.loss_lower_bound, 0.0)
        back = min(back, math.sqrt(2.0 * abs(bottom.eigenvalue.value or 0.0) * stake))
    return max(now, back)


def rho_at_exit(situation: Situation, gradient: float) -> float:
    """The largest rho that D1 allows where the escape direction's gradient is `gradient`, at most the present one."""
    m, bottom = situation.m, situation.bottom
    assert bottom is not None
    finite = 0 < m.effective_radius < math.inf and 0 < bottom.effective_radius < math.inf
    stretch = bottom.effective_radius / m.effective_radius if finite else 1.0  # ASAM's metric along q; 1 for SAM
    scale = 1.0 if m.variant == "usam" else gradient / math.sqrt(stretch)
    return min([m.rho, *(rho for rho, _ in situation.rho_bounds(scale) if rho > 0)])


def micro_batch(situation: Situation) -> Schedule | None:
    """m-SAM: the present rho and batch, each ascent on m ≤ B_crit samples, whose noise keeps half of SGD's escape rate.

    The descent's noise stays as it is, unlike with a smaller batch. None where no m ≥ MIN_BATCH frees, where another
    bound on rho holds at m, or where it is the joint prescription already.

    Source: theory A7, D2.
    """
    m, size = situation.m, batch_size.freeing_ascent_batch(situation)
    if size is None or m.micro_batch is not None or _other_bound(situation, size) < m.rho:
        return None
    radius = m.rho / situation.scale_at(size)
    batch = float(m.batch_size) if m.batch_size else None
    steps = steps_to_leave(situation, radius=radius, momentum=m.momentum, batch=batch)
    whole = situation.batch_size
    cost = (
        f"{math.ceil(whole / size)} times as many passes, each of {size} samples" if whole else "more, smaller passes"
    )
    phase = Phase(steps=None, rho=m.rho, micro_batch=size)
    hold = (replace(phase, steps=max(1, math.ceil(HOLD * steps))), phase) if steps else (phase,)
    return Schedule(
        kind="micro-batch",
        phases=hold,
        effect=f"the ascent made on {size} samples at a time keeps {_kept(situation, radius)} of SGD's escape rate at "
        f"the present rho, without more noise in the descent: {_when(steps)}",
        risk=f"as many samples a step but {cost}; it acts more like a larger rho afterwards; {LOOK}",
        source="docs/theory.md A7, D2",
        steps=float(steps) if steps is not None else None,
    )


def small_batch(situation: Situation) -> Schedule | None:
    """A smaller training batch at the present rho; None where none frees or another bound holds.

    Source: theory D2.
    """
    m, size = situation.m, batch_size.freeing_ascent_batch(situation)
    if size is None or m.micro_batch is not None or _other_bound(situation, size) < m.rho:
        return None
    radius = m.rho / situation.scale_at(size)
    steps = steps_to_leave(situation, radius=radius, momentum=m.momentum, batch=float(size))
    whole = situation.batch_size
    heat = f"{whole / size:.3g} times the gradient noise" if whole else "more gradient noise"
    return Schedule(
        kind="constant",
        phases=(Phase(steps=None, rho=m.rho, batch_size=size),),
        effect=f"batches of {size} keep {_kept(situation, radius)} of SGD's escape rate at the present rho: "
        f"{_when(steps)}",
        risk=f"{heat} in every step, which may cost more than the saddle; {LOOK}",
        source="docs/theory.md D2",
        steps=float(steps) if steps is not None else None,
    )


def _other_bound(situation: Situation, size: int) -> float:
    """The tightest bound on rho at this ascent batch, the saddle's own aside."""
    others = (rho for rho, name in situation.rho_bounds(situation.scale_at(size)) if name != "saddle trap")
    return min(others, default=math.inf)
