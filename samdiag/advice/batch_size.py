"""Which batch size lets the gradient noise free a captured saddle."""

from __future__ import annotations

import math

from samdiag.advice.situation import MIN_BATCH, Situation
from samdiag.remedies import Advice
from samdiag.theory.prescription import freeing_batch_size
from samdiag.verdicts.thresholds import QUADRATIC_FAILS

SOURCE = "docs/theory.md A7, D2"
MAX_HEATING = 16.0  # times; leaving needs 4(rho_eff|lam|)², so this serves directions captured by up to a factor of two


def keep(situation: Situation, reason: str) -> Advice:
    """The present ascent batch; None where neither it nor the size of the full batch is known."""
    size = situation.ascent_batch
    return Advice(current=size, recommended=size, interval=None, binding=None, reason=reason, source=SOURCE)


def silence(situation: Situation, reason: str) -> Advice:
    """No recommendation, and why."""
    return Advice(
        current=situation.ascent_batch, recommended=None, interval=None, binding=None, reason=reason, source=SOURCE
    )


def largest(situation: Situation) -> float:
    """The largest ascent batch whose noise keeps half of SGD's escape rate at the present rho; infinite: every one.

    Needs a negative direction and known noise, and a variant that normalises.

    Source: theory D2.
    """
    m, bottom = situation.m, situation.bottom
    assert bottom is not None
    return freeing_batch_size(
        m.noise_trace.value or 0.0,
        m.rho,
        bottom.eigenvalue.value or 0.0,
        bottom.offset,
        weight_decay=m.weight_decay,
        population=m.population,
    )


def freeing_ascent_batch(situation: Situation) -> int | None:
    """The largest ascent batch worth prescribing, below the present one; None where none frees, or it is not known."""
    m = situation.m
    normalised = m.variant in ("sam", "gsam")
    if situation.bottom is None or not normalised or not (m.noise_trace.value or 0.0) > 0:
        return None
    limit, present = largest(situation), situation.ascent_batch
    if not MIN_BATCH <= limit < (present if present is not None else math.inf):
        return None
    return math.floor(limit)


def free(situation: Situation) -> Advice:
    """The largest batch whose noise keeps half of SGD's escape rate, or why there is none.

    The noise that counts is that of the batch behind the *ascent* gradient: with micro-batched SAM the micro-batch may
    shrink instead.

    A batch that would raise the noise temperature eta/(B(1−gamma)) more than MAX_HEATING times is not recommended: on
    MNIST, 14 samples in place of 1000 at rho 2 left the saddle for a loss of 0.20 in 2000 steps, and
    rho = 0.5|g|/|lambda_min| reached 0.02 in 500. Nor is one where the quadratic at x is not the loss at the distance
    rho: two convolution networks kept at rho 2 and 8 in smaller batches ended where no unit was alive.

    Source: theory D2, with a cap on the noise temperature as D3 has one.
    """
    m = situation.m
    if situation.bottom is None:
        return silence(situation, "no negative eigenvalue beyond its error: nothing to escape from")
    if m.variant == "usam":
        return silence(
            situation, "in USAM the batch size never frees a captured saddle: its radius does not shrink with noise"
        )
    if m.variant.startswith("asam"):
        return silence(situation, "no closed form for ASAM's batch size: change rho")
    if (m.quadratic_error or 0.0) > QUADRATIC_FAILS:
        return silence(situation, "at the distance rho the loss is not the quadratic that noise would free: change rho")
    if m.noise_trace.value is None:
        return silence(situation, "the gradient noise is unknown: a single batch was analysed")
    if m.noise_trace.value <= 0:
        return silence(situation, "the gradients of all batches agree: there is no noise to free the saddle")
    limit = largest(situation)
    if limit < 1:
        return silence(
            situation, f"even a single sample's noise is too weak at this rho (B ≤ {limit:.2g} would be needed)"
        )
    name = "batch" if m.micro_batch is None else "micro-batch"
    present = situation.ascent_batch if m.batch_size is not None or m.micro_batch is not None else None
    if math.isinf(limit) or (present is not None and present <= limit):
        return keep(situation, f"the present {name} size already frees the direction of lambda_min")
    if limit < MIN_BATCH:
        return silence(
            situation,
            f"only {name}es of {limit:.3g} samples or fewer would free it at this rho, below the {MIN_BATCH} "
            "that are prescribed",
        )
    heats = m.micro_batch is None  # a micro-batch leaves the descent's noise as it is
    if heats and situation.batch_size is not None and limit < situation.batch_size / MAX_HEATING:
        return silence(
            situation,
            f"batches of at most {math.floor(limit)} samples would free it, but heat the gradient noise more than "
            f"{MAX_HEATING:.0f} times: change rho instead",
        )
    return Advice(
        current=situation.ascent_batch,
        recommended=float(math.floor(limit)),
        interval=(1.0, limit),
        binding="saddle trap",
        reason=f"a {name} of at most {math.floor(limit)} samples (the ascent's counts) keeps half of SGD's escape rate",
        source=SOURCE,
    )
