"""Why a treatment ended, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from samdiag.reports.numbers import number
from samdiag.treating.examined import AT_THE_END, Examined
from samdiag.treatment import Round

MOVED = 0.01  # share of the loss at stake that has to go for a round to count as having moved it


def has_moved(before: Examined, after: Examined) -> bool:
    """Whether the loss fell by a share worth the name."""
    fallen = (before.measurements.loss.value or 0.0) - (after.measurements.loss.value or 0.0)
    return fallen > MOVED * before.at_stake


def why_rescued(first: Examined, now: Examined) -> str:
    """What makes the run a rescued one."""
    m = now.measurements
    if now.verdict == "minimum":
        return "the run has converged"
    if now.verdict in AT_THE_END:
        gone = 100.0 * (1.0 - now.at_stake / first.at_stake)
        return f"{number(gone)} % of the loss that was at stake has gone, and the verdict is about the rest"
    pace = "" if m.lookahead_loss is None else f" and SAM at rho {number(m.rho)} goes on lowering the loss"
    return f"nothing holds the run any more{pace}"


def why_no_way(now: Examined, rounds: Sequence[Round]) -> str:
    """Why nothing can be applied."""
    if rounds and rounds[-1].diverged:
        return "the run diverged under the prescription, and no other way is prescribed"
    if now.verdict == "minimum":
        return f"the run rests at loss {number(now.measurements.loss.value)}, where plain steps do not go on either"
    missing = "; ".join(now.prescription.missing) or now.prescription.rho.reason
    return f"the prescription names no setting: {missing}"


def why_used_up(first: Examined, now: Examined, rounds: Sequence[Round]) -> str:
    """What the rounds came to."""
    which = "the round is" if len(rounds) == 1 else f"all {len(rounds)} rounds are"
    if rounds[-1].diverged:
        return f"{which} used up, and the last one diverged and was undone"
    moved = f"{number(first.measurements.loss.value)} → {number(now.measurements.loss.value)}"
    if now.has_risen(first):
        return f"the loss rose ({moved}), and {which} used up; the verdict is {now.verdict}"
    if not has_moved(first, now):
        return f"the loss did not move ({moved}), and {which} used up; the verdict is {now.verdict}"
    return f"{which} used up: the loss fell ({moved}), and the verdict is {now.verdict}"
