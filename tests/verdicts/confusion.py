"""`python -m tests.verdicts.confusion [COUNT [SEED]]` writes docs/confusion.md: verdicts against the simulated run."""

from __future__ import annotations

import collections
import sys
from pathlib import Path

from samdiag.types import VERDICTS_BY_HARM

from .study import LONG, SHIFT, STEPS, USAM_MARGIN, Row, study

PAGE = Path(__file__).parents[2] / "docs" / "confusion.md"
OUTCOMES = ("stays", "leaves", "diverges")
HEAD = """# Verdicts on random quadratics, held to the optimiser

{count} random quadratics ½ Σ λ_j x_j² (seed {seed}), 1 to 6 dimensions, index 0 to d; half of them USAM at the
critical point, half full-batch SAM at an offset; learning rates from 0.01/|λ|max up, no momentum, heavy ball, Nesterov
or EMA, weight decay in the update. Among them are eigenvalues of exactly 0, eigenvalues at −wd, and radii and steps
next to the thresholds. samdiag sees the loss and the point; the optimiser, written separately in numpy, is run from the
same point for {steps} steps, and {long} where a claim needs longer. Made by `python -m tests.verdicts.confusion {count}
{seed}`; `make test` runs {quick} such cases and `make test-slow` all.

**{failed} of {count} verdicts are contradicted** by the run, and every `undecided` lies inside a margin that it states:
the margins are computed without samdiag, and an `undecided` far from all of them fails the test.

"""
MARGINS = """## Margins

- SAM: ρ_eff·|λ| within {sam:.0%} of 1, and, where the run is simulated on the local quadratic, an outcome that ρ or the
  start shifted by {sam:.0%} changes (theory A5). USAM: within {usam:.1%}.
- An eigenvalue that is 0 to rounding at a critical point: the second-order test is silent. An eigenvalue at −wd to half
  a percent.
- lr on the edge of stability to rounding, or within {sam:.0%} of it where the run is not critical.
- A negative direction that still grows after {steps} steps, or a run that leaves after more than those: no horizon is
  long enough.
- lr so small that plain steps would not leave within 40000 steps: the linear tests then stand alone.
- A weight decay that outweighs the gradient, so that plain steps raise the loss too.
"""
TAIL = """
`descending` and `undecided` make no claim about where the run ends; `descending` is held to whether the loss falls,
`bounce` to whether the gradient keeps its size, and `hallucinated-point` to whether the run drifts off. Where SAM stays
at a negative eigenvalue, staying is what was simulated: another start may leave.
"""


def table(rows: list[Row]) -> str:
    """A Markdown table: verdict by outcome."""
    counted = collections.Counter((row.verdict, row.outcome) for row in rows)
    verdicts = [v for v in VERDICTS_BY_HARM if any((v, o) in counted for o in OUTCOMES)]
    lines = ["| verdict | " + " | ".join(OUTCOMES) + " |", "|---|" + "---:|" * len(OUTCOMES)]
    lines += [f"| `{v}` | " + " | ".join(str(counted[v, o] or "") for o in OUTCOMES) + " |" for v in verdicts]
    return "\n".join(lines)


def example(row: Row) -> str:
    """One case in a line."""
    case = row.case
    lam, x = (", ".join(f"{v:.3g}" for v in values) for values in (case.lam, case.x))
    momentum = f", momentum {case.momentum:g} ({case.momentum_kind})" if case.momentum else ""
    decay = f", wd {case.weight_decay:.3g}" if case.weight_decay else ""
    return f"{case.variant} at ({x}), λ ({lam}), rho {case.rho:.3g}, lr {case.lr:.3g}{momentum}{decay}: {row.outcome}"


def page(rows: list[Row], seed: int, quick: int) -> str:
    """docs/confusion.md."""
    failed = sum(row.failed for row in rows)
    parts = [HEAD.format(count=len(rows), seed=seed, steps=STEPS, long=LONG, quick=quick, failed=failed)]
    for variant, name in (("sam", "SAM, full batch"), ("usam", "USAM")):
        own = [row for row in rows if row.case.variant == variant]
        open_ = sum(row.verdict == "undecided" for row in own)
        parts.append(f"## {name}: {len(own)} cases, {open_} undecided ({open_ / len(own):.1%})\n\n{table(own)}\n\n")
        for kind in ("none", "heavy ball", "Nesterov", "EMA"):
            some = [row for row in own if row.case.momentum_kind == kind]
            parts.append(f"### {name}, momentum: {kind} ({len(some)})\n\n{table(some)}\n\n")
    parts.append(MARGINS.format(sam=SHIFT, usam=USAM_MARGIN, steps=STEPS))
    parts.append("\n## What the comparison came to\n\n| | cases | for example |\n|---|---:|---|\n")
    for agreement, count in collections.Counter(row.agreement for row in rows).most_common():
        first = next(row for row in rows if row.agreement == agreement)
        shown = "" if agreement == "agrees" else f"{first.verdict}: {example(first)}"
        parts.append(f"| {agreement.replace('|', chr(92) + '|')} | {count} | {shown} |\n")
    parts.append(TAIL)
    return "".join(parts)


def main() -> None:
    """Writes the page."""
    count, seed = (int(v) for v in [*sys.argv[1:], *("2400", "1")[len(sys.argv) - 1 :]])
    PAGE.write_text(page(study(count, seed), seed, QUICK), encoding="utf-8")


QUICK = 320  # cases in `make test`

if __name__ == "__main__":
    main()
