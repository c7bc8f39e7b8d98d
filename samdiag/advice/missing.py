"""What would have to be known for a recommendation, and how to supply it."""

from __future__ import annotations

from samdiag.advice.escape import has_start
from samdiag.advice.situation import Situation
from samdiag.verdicts.reading import is_hallucination_candidate, was_cut

LR = "the learning rate: give --lr"
NOISE = (
    "the gradient noise, unknown because a single batch was analysed: analyse two or more (more --samples, or smaller "
    "batches)"
)
START = (
    "a start: lambda_min's direction has neither gradient nor noise; train some steps with mini-batches, or perturb "
    "the weights"
)


def for_saddle(situation: Situation) -> tuple[str, ...]:
    """What is missing to leave a saddle, where nothing is recommended."""
    m = situation.m
    found = [*_products(situation), *_sign(situation)]
    if m.lr is None:
        found.append(LR)
    batch = float(m.batch_size) if m.batch_size else None
    if situation.bottom is not None and not has_start(situation, batch):
        found.append(NOISE if m.noise_trace.value is None else START)
    return tuple(found)


def for_hallucination(situation: Situation) -> tuple[str, ...]:
    """What is missing to leave a hallucinated point, where nothing is recommended."""
    m = situation.m
    found = list(_products(situation))
    if m.ridge_distance.value is None:
        found.append(
            f"the ridge: none was found within {m.ridge_searched:.3g} along the gradient; more --samples may show it"
        )
    if m.lr is None:
        found.append(LR)
    return tuple(found) or ("a bound on rho below the present one: none that was measured is",)


def for_decision(situation: Situation) -> tuple[str, ...]:
    """What is missing for a verdict; the finding says why it is missing."""
    m = situation.m
    found = [*_products(situation), *_sign(situation)]
    if is_hallucination_candidate(m) is None:
        found.append("a ratio |g+|/|g| with a smaller error: more --samples")
    if m.lr is None:
        found.append(LR)
    if m.noise_trace.value is None and m.batch_size is not None:
        found.append(NOISE)
    if not found:
        found.append("nothing that can be measured here: a test sits on its threshold; train on and inspect again")
    return tuple(found)


def _products(situation: Situation) -> tuple[str, ...]:
    m = situation.m
    if not m.self_check.passed:
        return (f"Hessian products that pass their check ({m.self_check.reason}): try --dtype float64",)
    if was_cut(m):
        return ("the ends of the spectrum, cut short: more --max-products or a longer --time-limit",)
    return ()


def _sign(situation: Situation) -> tuple[str, ...]:
    """The sign of lambda_min, and which of its errors to bring down."""
    e, wd = situation.m.lambda_min, situation.m.weight_decay
    if e.value is None:
        return ("lambda_min: it was not found",)
    if not e.low + wd <= 0 <= e.high + wd or not e.spread() > 0:
        return ()
    numerical = e.error >= e.spread() / 2
    how = "a smaller --tol" if numerical else "more --samples"
    return (f"the sign of lambda_min = {e.value:.3g} ± {e.spread():.2g}: {how}",)
