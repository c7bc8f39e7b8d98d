"""SAM has settled where only the shifted gradient vanishes."""

from __future__ import annotations

from samdiag.types import Finding, Measurements, Severity
from samdiag.verdicts.hallucination import finding, read_hallucination
from samdiag.verdicts.reading import run_batches, run_shifted_norm, shown


def judge(m: Measurements) -> Finding | None:
    """`hallucinated-minimizer`: |g+| < 0.1|g| and every eigenvalue of the SAM Jacobian outside its zero modes is
    stable.

    Source: PARK (arXiv 2509.21818) Def. 2.1; theory B1, B3, B6.
    """
    h = read_hallucination(m)
    if h is None or not h.attracting:
        return None
    modes = f", with {h.zero_modes} neutral direction(s)" if h.zero_modes else ""
    return finding(
        m,
        h,
        "hallucinated-minimizer",
        Severity.ERROR,
        f"the gradient is {shown(m.grad_norm.value)} but SAM's shifted gradient is only "
        f"{shown(run_shifted_norm(m))}{run_batches(m)}: SAM stands still at a "
        f"point that is no minimum of the loss, and the SAM Jacobian attracts{modes}. Plain gradient steps "
        "would go on.",
        "PARK (arXiv 2509.21818) Def. 2.1 and Sec. 3; SAM Jacobian by docs/theory.md B2, B3",
    )
