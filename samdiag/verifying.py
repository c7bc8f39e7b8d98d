"""measured → judged, with a longer trial where it tells more → tried → judged again: what only a run can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from samdiag.patience import Patience
from samdiag.probes import Probe, Verify
from samdiag.remedies import Prescription
from samdiag.types import Finding, Measurements
from samdiag.user_errors import is_out_of_memory

if TYPE_CHECKING:
    from samdiag.formats.momentum import Buffers
    from samdiag.measure.measuring import Measured

Progress = Callable[[str, int], None]
ADAM = (
    "the checkpoint's optimizer is of the Adam family: these runs make SGD's update, so that no verdict falls by them"
)
UNTRIED = "what is prescribed is for the verdict after the test: it has not been tried itself"
ELSEWHERE = frozenset({"descending", "minimum", "bounce", "unstable", "convergence-floor"})  # no saddle is left there


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """What the dynamics probe is asked, what it starts from, and who is told of its cost.

    Attributes:
        adam: the checkpoint's optimizer is of the Adam family, whose update the probe does not run.
    """

    verify: Verify
    buffers: Buffers | None = None
    adam: bool = False
    announce: Callable[[str], None] | None = None


def judged(found: Measured) -> tuple[Measurements, tuple[Finding, ...]]:
    """The measurements with their findings, after a longer trial of the update where that may tell more."""
    from samdiag.measure.measuring import look_longer
    from samdiag.verdicts import judge_all
    from samdiag.verdicts.longer import asks_for_longer_trial
    from samdiag.verdicts.thresholds import LONG_TRIAL

    m = found.measurements
    findings = judge_all(m)
    if asks_for_longer_trial(m, findings[0].verdict):
        m = look_longer(found, LONG_TRIAL)
        findings = judge_all(m)
    return m, findings


def try_out(
    found: Measured,
    findings: tuple[Finding, ...],
    prescription: Prescription,
    trying: Trying,
    progress: Progress | None,
    patience: Patience | None,
) -> tuple[Probe | None, tuple[Finding, ...], tuple[str, ...]]:
    """The probe with its comparisons, the findings that are left standing, and warnings.

    Where memory runs out the diagnosis stays as it was measured, with a warning.
    """
    from samdiag.advice import prescribe
    from samdiag.measure.probe import run_probe
    from samdiag.verdicts.verified import compare, confirm

    if progress:
        progress("trying", 0)
    velocity, notes = (None, ()) if trying.buffers is None else trying.buffers.flat(found.base.problem.model)
    try:
        probe = run_probe(
            found,
            prescription,
            trying.verify,
            velocity=velocity,
            announce=trying.announce,
            patience=patience,
            leaving=findings[0].verdict not in ELSEWHERE,
            notes=(*notes, ADAM) if trying.adam else notes,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None, findings, ("--verify ran out of memory, and nothing was tried: use fewer --samples",)
    probe = replace(probe, comparisons=compare(found.measurements, findings, probe))
    left = findings if trying.adam else confirm(findings, probe, found.measurements)
    if left[0].verdict != findings[0].verdict and prescribe(found.measurements, left).schedule is not None:
        probe = replace(probe, notes=(*probe.notes, UNTRIED))
    return probe, left, ()
