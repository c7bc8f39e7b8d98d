"""One file per verdict: `judge(Measurements) → Finding | None`; what several of them look at is in `reading`."""

from __future__ import annotations

from samdiag.registry import VERDICTS, load
from samdiag.types import VERDICTS_BY_HARM, Finding, Measurements


def judge_all(measurements: Measurements) -> tuple[Finding, ...]:
    """Every finding that holds, in the order of harm; the first one is the verdict. Never empty: `undecided` fills the
    gap.

    Source: theory F.
    """
    from samdiag.verdicts.undecided import fallback

    judged = [load(VERDICTS[name])(measurements) for name in VERDICTS_BY_HARM]
    return tuple(f for f in judged if f is not None) or (fallback(measurements),)
