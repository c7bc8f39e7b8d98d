"""Where a longer trial of the real update would tell more than the next few steps."""

from __future__ import annotations

from samdiag.types import Measurements
from samdiag.verdicts.reading import is_near_saddle, is_outpaced, progress, was_cut
from samdiag.verdicts.thresholds import LONG_TRIAL

OPEN = (
    "undecided",
    "saddle-slowdown",
    "hallucinated-point",
)  # near a saddle more steps may make something firmer of it
PACED = ("convergence-floor", "bounce", "unstable")  # these rest on the pace of the next steps
GOING = ("descending", "minimum")  # not so slow as plain steps make it look?


def asks_for_longer_trial(m: Measurements, verdict: str) -> bool:
    """Whether LONG_TRIAL steps with SAM and with plain gradients are worth their 300 gradients.

    They are where the verdict rests on the pace of the next steps, where it leaves a saddle open or calls it slow, and
    near a saddle where the loss falls SLOWDOWN times slower than in plain steps; if progress can be told at all and the
    trial was shorter.
    """
    able = m.lookahead_steps < LONG_TRIAL and progress(m) is not None and not was_cut(m) and m.self_check.passed
    if not able or verdict in PACED:
        return able
    asked = verdict in OPEN or (verdict in GOING and is_outpaced(m))
    return asked and m.lambda_min.high < 0 and is_near_saddle(m)
