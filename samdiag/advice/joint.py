"""rho, gamma and B together: keep rho if a batch size makes it safe, else shrink it; then momentum; then the escape
time.
"""

from __future__ import annotations

import math

from samdiag.advice import batch_size, momentum, rho
from samdiag.advice.situation import Situation
from samdiag.remedies import Advice, Prescription
from samdiag.theory.diffusion import escape_steps, step_noise
from samdiag.theory.edge import stability_edge
from samdiag.theory.saddle import shifted_eigenvalue
from samdiag.types import Finding, Measurements

MAX_STEPS = 100_000  # an escape predicted to take longer than this is no escape (theory D6: N_escape > N)
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
        why = "the floor lambda_max·rho is proportional to rho: decay rho towards 0 to go on"
        return _only_rho(situation, rho.decay(situation, "convergence floor", why))
    if verdict == "bounce":
        why = "the bounce's size is proportional to rho: decay rho to come closer"
        return _only_rho(situation, rho.decay(situation, "edge of stability", why))
    if verdict == "undecided":
        return Prescription(
            rho=rho.silence(situation, UNDECIDED),
            momentum=momentum.silence(situation, UNDECIDED),
            batch_size=batch_size.silence(situation, UNDECIDED),
        )
    return _only_rho(situation, rho.keep(situation, "no failure found: keep it"))


def _only_rho(situation: Situation, advice: Advice) -> Prescription:
    keep = "no reason to change it"
    return Prescription(
        rho=advice, momentum=momentum.keep(situation, keep), batch_size=batch_size.keep(situation, keep)
    )


def _leave_hallucination(situation: Situation) -> Prescription:
    """Every bound of D1 at once: 0.9 s* alone left the hallucination and fell into the saddle trap (B7)."""
    shrunk = rho.shrink(situation, "to leave the hallucination")
    keep = "rho is what made the hallucination"
    return Prescription(
        rho=shrunk,
        momentum=momentum.keep(situation, keep),
        batch_size=batch_size.keep(situation, keep),
        notes=(REDIAGNOSE, "a warm start with plain gradient descent is not a cure in itself (docs/theory.md B7)"),
    )


def _stabilise(situation: Situation) -> Prescription:
    m = situation.m
    if situation.beyond_edge:
        edge = stability_edge(m.momentum, nesterov=m.nesterov) / (1.0 - m.dampening)
        limit = edge / max((m.lambda_max.value or 0.0) + m.weight_decay, 1e-300)
        reason = f"the learning rate is beyond the edge of stability whatever rho is: lower it below {limit:.3g}"
        return Prescription(
            rho=rho.silence(situation, reason),
            momentum=momentum.silence(situation, reason),
            batch_size=batch_size.silence(situation, reason),
            notes=(REDIAGNOSE,),
        )
    return _only_rho(situation, rho.shrink(situation, "to come back below the edge"))


def _leave_saddle(situation: Situation) -> Prescription:
    m = situation.m
    if situation.bottom is None or situation.beyond_edge:
        reason = (
            "the learning rate is beyond the edge of stability: lower it first"
            if situation.beyond_edge
            else "no negative eigenvalue beyond its error"
        )
        return Prescription(
            rho=rho.silence(situation, reason),
            momentum=momentum.silence(situation, reason),
            batch_size=batch_size.silence(situation, reason),
        )
    size = batch_size.free(situation)
    if size.recommended is not None and size.binding is not None:
        scale = situation.scale_at(size.recommended)
        violated = [(v, n) for v, n in situation.rho_bounds(scale) if v < m.rho * (1 - 1e-6) and n != "saddle trap"]
        if not violated:
            return _finish(situation, rho.keep(situation, "the batch size makes the present rho safe"), size, scale)
        size = batch_size.keep(situation, f"a smaller batch alone is not enough: {violated[0][1]} bounds rho as well")
    return _finish(situation, rho.shrink(situation, "to leave the saddle"), size, situation.scale)


def _finish(situation: Situation, radius_advice: Advice, size: Advice, scale: float) -> Prescription:
    """Momentum for the new rho and B, and the escape time they predict; `scale` is what divides rho under them."""
    m = situation.m
    assert situation.bottom is not None
    if radius_advice.recommended is None or scale <= 0:
        reason = "nothing to speed up while the saddle captures"
        return Prescription(rho=radius_advice, momentum=momentum.silence(situation, reason), batch_size=size)
    radius = radius_advice.recommended / scale
    new_size = size.recommended if size.binding is not None and m.micro_batch is None else None
    chosen = new_size if new_size is not None else (float(m.batch_size) if m.batch_size else None)  # of the descent
    speed = momentum.match(situation, radius=radius, batch_size=chosen)
    steps, note = _predicted_steps(situation, radius, speed, chosen)
    return Prescription(
        rho=radius_advice, momentum=speed, batch_size=size, escape_steps=steps, notes=(*note, AFTERWARDS, REDIAGNOSE)
    )


def _predicted_steps(
    situation: Situation, radius: float, speed: Advice, batch: float | None
) -> tuple[float | None, tuple[str, ...]]:
    """N_escape under the new settings, or why it cannot be given; `batch` is the descent's, whose noise it is.

    Source: theory D4.
    """
    m, bottom = situation.m, situation.bottom
    assert bottom is not None
    if m.step_size is None:
        return None, ("escape time not predicted: the learning rate is not known",)
    lam = bottom.eigenvalue.value or 0.0
    gamma = speed.recommended if speed.recommended is not None else m.momentum
    noise = 0.0
    if batch is not None and bottom.noise is not None:
        noise = step_noise(bottom.noise, batch, radius, lam)
    steps = escape_steps(
        offset=abs(bottom.offset / lam),
        noise=noise,
        exit_distance=situation.gradient_at(batch) / abs(lam),
        mu=shifted_eigenvalue(lam, radius, m.weight_decay),
        lr=m.step_size,
        momentum=gamma,
        nesterov=m.nesterov,
        max_steps=MAX_STEPS,
    )
    if steps == 0:
        return None, ("the escape direction already carries all of the gradient: it leaves at once",)
    if steps is not None:
        return float(steps), ()
    if noise == 0 and math.isclose(bottom.offset, 0.0, abs_tol=1e-12):
        return None, ("escape time not predicted: neither noise nor an offset along the escape direction",)
    return None, (f"no escape predicted within {MAX_STEPS} steps",)
