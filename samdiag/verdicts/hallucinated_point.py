"""The shifted gradient vanishes here, but the iteration does not stay."""

from __future__ import annotations

from samdiag.types import Finding, Measurements, Severity
from samdiag.verdicts.hallucination import finding, read_hallucination
from samdiag.verdicts.reading import run_batches, run_shifted_norm, shown


def judge(m: Measurements) -> Finding | None:
    """`hallucinated-point`: |g+| < 0.1|g| with a SAM Jacobian that repels.

    Existence is not attraction: the point built in PARK Thm 2.2 is generically a repeller in two or more dimensions.

    Source: PARK (arXiv 2509.21818) Thm 2.2, corrected; theory B3.
    """
    h = read_hallucination(m)
    if h is None or h.attracting:
        return None
    real = f"{h.smallest.real:.3g}" if h.smallest is not None else "none"
    return finding(
        m,
        h,
        "hallucinated-point",
        Severity.WARNING,
        f"SAM's shifted gradient {shown(run_shifted_norm(m))}{run_batches(m)} nearly vanishes although the gradient is "
        f"{shown(m.grad_norm.value)}, but the SAM "
        f"Jacobian repels (smallest real part {real}): the run is slow here and will drift off.",
        "PARK (arXiv 2509.21818) Thm 2.2; SAM Jacobian by docs/theory.md B2, B3",
    )
