"""One file per verdict: `judge(Measurements) → Finding | None`; what several of them look at is in `reading`."""

from __future__ import annotations

from dataclasses import replace

from samdiag.registry import VERDICTS, load
from samdiag.types import VERDICTS_BY_HARM, Confidence, Finding, Measurements


def judge_all(measurements: Measurements) -> tuple[Finding, ...]:
    """Every finding that holds, in the order of harm; the first one is the verdict. Never empty: `undecided` fills the
    gap.

    Of a part of the training set in one batch nobody knows the sampling errors: no finding is then more than a guess.

    Source: theory F.
    """
    from samdiag.verdicts.undecided import fallback

    judged = [load(VERDICTS[name])(measurements) for name in VERDICTS_BY_HARM]
    found = tuple(f for f in judged if f is not None) or (fallback(measurements),)
    if not _is_unknown_part(measurements):
        return found
    return tuple(f if f.verdict == "undecided" else replace(f, confidence=Confidence.LOW) for f in found)


def _is_unknown_part(m: Measurements) -> bool:
    """Whether the samples are known to be a part of more, and one batch, which cannot show how far a part may err."""
    return m.num_batches == 1 and m.population is not None and m.population > m.num_samples
