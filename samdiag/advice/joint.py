"""The prescription for a verdict: settings that go together, and the schedule that carries them out."""

from __future__ import annotations

from dataclasses import replace

from samdiag.advice import batch_size, decays, learning_rate, leaving, missing, momentum, moving_away, rho
from samdiag.advice.escape import MAX_STEPS, has_start, steps_to_leave
from samdiag.advice.leaving import Way
from samdiag.advice.situation import Situation
from samdiag.remedies import Advice, Phase, Prescription, Schedule
from samdiag.theory.edge import stability_edge
from samdiag.types import Finding, Measurements

REDIAGNOSE = "diagnose again after any change: leaving one trap can lead into another (docs/theory.md B7)"
AFTERWARDS = "this rho is for leaving: what keeps the saddle away afterwards may be larger"
UNDECIDED = "the measurement decides nothing here; see the finding"


def prescribe(m: Measurements, findings: tuple[Finding, ...]) -> Prescription:
    """The prescription for the verdict, i.e. the first of `findings`; always complete, with a reason where it is
    silent.

    Source: theory D5, D6.
    """
    situation = Situation.of(m)
    verdict = findings[0].verdict
    if verdict in ("saddle-attraction", "saddle-slowdown"):
        return _leave_saddle(situation)
    if verdict in ("hallucinated-minimizer", "hallucinated-point"):
        return _leave_hallucination(situation)
    if verdict == "unstable":
        return _stabilise(situation)
    if verdict == "convergence-floor":
        why = "the floor lambda_max·rho is proportional to rho: decay rho to go on"
        p = _only_rho(situation, rho.decay(situation, "convergence floor", why, first=decays.floor_rho(situation)))
        return replace(p, schedule=decays.of_floor(situation))
    if verdict == "bounce":
        why = "the bounce's size is proportional to rho: decay rho to come closer"
        chosen, others = decays.of_bounce(situation)
        p = _only_rho(situation, rho.decay(situation, "edge of stability", why))
        return replace(p, schedule=chosen, alternatives=others)
    if verdict == "undecided":
        return _silent(situation, UNDECIDED, missing=missing.for_decision(situation))
    return _only_rho(situation, rho.keep(situation, "no failure found: keep it"))


def _only_rho(situation: Situation, advice: Advice) -> Prescription:
    keep = "no reason to change it"
    return Prescription(
        rho=advice, momentum=momentum.keep(situation, keep), batch_size=batch_size.keep(situation, keep)
    )


def _silent(situation: Situation, reason: str, *, missing: tuple[str, ...] = ()) -> Prescription:
    return Prescription(
        rho=rho.silence(situation, reason),
        momentum=momentum.silence(situation, reason),
        batch_size=batch_size.silence(situation, reason),
        missing=missing,
    )


def _leave_hallucination(situation: Situation) -> Prescription:
    """Every bound of D1 at once: 0.9 s* alone left the hallucination and fell into the saddle trap (B7)."""
    shrunk = rho.shrink(situation, "to leave the hallucination")
    keep = "rho is what made the hallucination"
    chosen, others = moving_away.schedules(situation, shrunk)
    return Prescription(
        rho=shrunk,
        momentum=momentum.keep(situation, keep),
        batch_size=batch_size.keep(situation, keep),
        notes=(REDIAGNOSE, "a warm start with plain gradient descent is not a cure in itself (docs/theory.md B7)"),
        schedule=chosen,
        alternatives=others,
        missing=missing.for_hallucination(situation) if chosen is None else (),
    )


def _stabilise(situation: Situation) -> Prescription:
    if situation.beyond_edge:
        return _below_edge(situation)
    p = _only_rho(situation, rho.shrink(situation, "to come back below the edge"))
    new = p.rho.recommended
    if new is None or new >= situation.m.rho:
        return p
    chosen = Schedule(
        kind="constant",
        phases=(Phase(steps=None, rho=new),),
        effect=f"rho {new:.3g} brings lambda(1 + rho·lambda) below the edge of stability at the present lr",
        risk=REDIAGNOSE,
        source="docs/theory.md A1, D1",
    )
    return replace(p, schedule=chosen, alternatives=_lower_lr(situation))


def _below_edge(situation: Situation) -> Prescription:
    """A lower learning rate, before anything can be said of the rest."""
    m = situation.m
    edge = stability_edge(m.momentum, nesterov=m.nesterov) / (1.0 - m.dampening)
    limit = edge / max((m.lambda_max.value or 0.0) + m.weight_decay, 1e-300)
    reason = f"the learning rate is beyond the edge of stability whatever rho is: lower it below {limit:.3g}"
    lower = _lower_lr(situation)
    return replace(
        _silent(situation, reason),
        notes=(REDIAGNOSE,),
        lr=learning_rate.below_edge(situation),
        schedule=lower[0] if lower else None,
    )


def _lower_lr(situation: Situation) -> tuple[Schedule, ...]:
    advice = learning_rate.below_edge(situation)
    if advice is None or advice.recommended is None:
        return ()
    return (
        Schedule(
            kind="lower-lr",
            phases=(Phase(steps=None, rho=situation.m.rho, lr=advice.recommended),),
            effect=f"lr {advice.recommended:.3g} is stable at the present rho: {advice.reason}",
            risk=f"a lower learning rate can make traps of saddles (docs/theory.md A6): {REDIAGNOSE}",
            source=advice.source,
        ),
    )


def _leave_saddle(situation: Situation) -> Prescription:
    if situation.beyond_edge:
        return _below_edge(situation)
    if situation.bottom is None:
        reason = "no negative eigenvalue beyond its error"
        return _silent(situation, reason, missing=missing.for_saddle(situation))
    p = _left_at(situation)
    if p.schedule is None and situation.m.lr is not None and p.missing:
        usable = learning_rate.usable(situation)
        faster = _left_at(learning_rate.at_lr(situation, usable.recommended)) if usable and usable.recommended else p
        if usable is not None and faster.schedule is not None:
            return replace(faster, lr=usable, schedule=_with_lr(faster.schedule, usable), alternatives=(), missing=())
    return p


def _with_lr(schedule: Schedule, advice: Advice) -> Schedule:
    """The same phases at that learning rate."""
    phases = tuple(replace(p, lr=p.lr or advice.recommended) for p in schedule.phases)
    return replace(schedule, phases=phases, effect=f"with lr {advice.recommended:.3g}: {schedule.effect}")


def _left_at(situation: Situation) -> Prescription:
    """The joint prescription of D5 at this learning rate, with its schedule."""
    m = situation.m
    size = batch_size.free(situation)
    if size.recommended is not None and size.binding is not None:
        scale = situation.scale_at(size.recommended)
        violated = [(v, n) for v, n in situation.rho_bounds(scale) if v < m.rho * (1 - 1e-6) and n != "saddle trap"]
        if not violated:
            return _finish(situation, rho.keep(situation, "the batch size makes the present rho safe"), size, scale)
        size = batch_size.keep(situation, f"a smaller batch alone is not enough: {violated[0][1]} bounds rho as well")
    return _finish(situation, rho.shrink(situation, "to leave the saddle"), size, situation.scale)


def _finish(situation: Situation, radius_advice: Advice, size: Advice, scale: float) -> Prescription:
    """Momentum for the new rho and B, the escape time they predict, the schedule; `scale` divides rho under them."""
    m = situation.m
    if radius_advice.recommended is None or scale <= 0:
        reason = "nothing to speed up while the saddle captures"
        return _scheduled(
            situation,
            Prescription(rho=radius_advice, momentum=momentum.silence(situation, reason), batch_size=size),
            None,
        )
    radius = radius_advice.recommended / scale
    ascent = int(size.recommended) if size.recommended is not None and size.binding is not None else None
    new_size = float(ascent) if ascent is not None and m.micro_batch is None else None
    chosen = new_size if new_size is not None else (float(m.batch_size) if m.batch_size else None)  # of the descent
    speed = momentum.match(situation, radius=radius, batch_size=chosen)
    gamma = speed.recommended if speed.recommended is not None else m.momentum
    way = Way(rho=radius_advice.recommended, momentum=gamma, radius=radius, batch=chosen, ascent=ascent)
    steps, note = _predicted_steps(situation, way)
    p = Prescription(
        rho=radius_advice, momentum=speed, batch_size=size, escape_steps=steps, notes=(*note, AFTERWARDS, REDIAGNOSE)
    )
    return _scheduled(situation, p, way)


def _scheduled(situation: Situation, p: Prescription, way: Way | None) -> Prescription:
    chosen, others = leaving.schedules(situation, p, way)
    lacking: tuple[str, ...] = ()
    if chosen is None:
        lacking = missing.for_saddle(situation) or (
            f"time: not even plain steps leave within {MAX_STEPS} at this learning rate",
        )
    return replace(p, schedule=chosen, alternatives=others, missing=lacking)


def _predicted_steps(situation: Situation, way: Way) -> tuple[float | None, tuple[str, ...]]:
    """N_escape under the new settings, or why it cannot be given.

    Source: theory D4.
    """
    if situation.m.step_size is None:
        return None, ("escape time not predicted: the learning rate is not known",)
    steps = steps_to_leave(situation, radius=way.radius, momentum=way.momentum, batch=way.batch)
    if steps == 0:
        return None, ("the escape direction already carries all of the gradient: it leaves at once",)
    if steps is not None:
        return float(steps), ()
    if not has_start(situation, way.batch):
        return None, ("escape time not predicted: neither noise nor an offset along the escape direction",)
    return None, (f"no escape predicted within {MAX_STEPS} steps",)
