"""Predicted against observed: what short continuations of the run say about the verdict and the prescription."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from samdiag.probes import AS_CONFIGURED, PRESCRIBED, SGD, Comparison, Probe, ProbedRun
from samdiag.types import Confidence, Finding, Measurements, Severity
from samdiag.verdicts import thresholds as t
from samdiag.verdicts.reading import shown

STUCK = frozenset({"saddle-attraction", "hallucinated-minimizer", "convergence-floor", "saddle-slowdown"})
SADDLES = frozenset({"saddle-attraction", "saddle-slowdown", "saddle-escaping"})  # where leaving has a meaning
MOVING = frozenset({"descending", "minimum", "saddle-escaping"})
AS_WELL = 0.5  # of SGD's fall: theory D1 asks no more of a setting than to keep half of SGD's rate
STILL = 1.0 / t.PRACTICAL_CAPTURE  # of SGD's fall: what a practically captured run keeps of its pace
CLEAR = t.PROGRESS  # of the remaining loss: a run that takes off less within the probe has shown nothing
STEPS_FACTOR = 2.0  # of predicted steps either way: |x| at a fixed step scatters like a normal variate, so that half of
# the exits lie within about ± ln 2 e-foldings of the median, and there are some three of them to an exit
LOSS_DIGITS = 4  # as in the report's other losses: near a saddle the first ones do not change
PACE = (1.0 + t.SLOWDOWN) / 2.0  # times SGD's steps: nearer to SGD's own pace than to what is called slowed down


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A probe's runs as a judge sees them.

    Attributes:
        left: the loss above its lower bound at the checkpoint; None where no bound is known.
    """

    probe: Probe
    sam: ProbedRun
    sgd: ProbedRun
    prescribed: ProbedRun | None
    left: float | None

    @classmethod
    def of(cls, probe: Probe, m: Measurements) -> _Seen:
        sam, sgd = probe.run(AS_CONFIGURED), probe.run(SGD)
        assert sam is not None
        assert sgd is not None
        bound = m.loss_lower_bound
        left = None if bound is None else max(sgd.points[0].loss - bound, 0.0)
        return cls(probe=probe, sam=sam, sgd=sgd, prescribed=probe.run(PRESCRIBED), left=left)

    def goes_down(self, run: ProbedRun) -> bool:
        """Whether the run has for certain taken off what counts: CLEAR of the loss, or, with no bound known, enough to
        have left the saddle.
        """
        if run.diverged or run.gain_interval[0] <= 0:
            return False
        if self.left is None:
            return run.median_escape is not None
        return run.gain_interval[0] >= CLEAR * self.left

    def as_well(self, run: ProbedRun) -> bool:
        """Whether the run has for certain lowered the loss by AS_WELL of what SGD has, which is enough to tell."""
        return self.goes_down(self.sgd) and run.gain_interval[0] >= AS_WELL * self.sgd.gain_interval[1]

    def rises(self, run: ProbedRun) -> bool:
        """Whether the run's loss has for certain risen by more than STILL of what SGD takes off, or it diverged."""
        return run.diverged > 0 or run.gain_interval[1] < -STILL * abs(self.sgd.gain)

    def stands_still(self, run: ProbedRun) -> bool:
        """Whether the run has for certain done less than STILL of what SGD has, which is enough to tell."""
        low, high = run.gain_interval
        still = high <= STILL * self.sgd.gain_interval[0] or (run.diverged > 0 and low == -math.inf)
        return self.goes_down(self.sgd) and still


def half_time(run: ProbedRun, target: float) -> float | None:
    """Step at which the loss had fallen by `target`, between two records by a straight line; None: it has not."""
    start = run.points[0].loss
    for before, after in zip(run.points, run.points[1:], strict=False):
        if start - after.loss >= target:
            share = (start - before.loss, start - after.loss)
            part = (target - share[0]) / (share[1] - share[0]) if share[1] > share[0] else 1.0
            return before.step + part * (after.step - before.step)
    return None


def contradiction(finding: Finding, probe: Probe, m: Measurements) -> str | None:
    """What the probe says against the finding for certain; None where it says nothing, or not certainly.

    Stuck is contradicted by a loss that falls by half as much as SGD's or more, once SGD's fall is clear; slowed down,
    by one that has come half of SGD's way in less than PACE times its steps. Moving is contradicted by a loss that
    falls by less than a tenth of SGD's, without leaving. Where SGD does not clearly go down, nothing is told.
    """
    seen = _Seen.of(probe, m)
    if finding.verdict in STUCK and seen.as_well(seen.sam):
        if finding.verdict == "saddle-slowdown" and not _keeps_pace(seen):
            return None
        return f"as configured the loss falls as SGD's does, {_falls(seen)}"
    if finding.verdict in MOVING and seen.stands_still(seen.sam) and not seen.sam.left:
        how = "rises" if seen.rises(seen.sam) else "stands still"
        return f"as configured the loss {how} where SGD's falls, {_falls(seen)}"
    return None


def _keeps_pace(seen: _Seen) -> bool:
    """Whether SAM came half of SGD's way about as soon as SGD did."""
    target = seen.sgd.gain / 2.0
    sam, sgd = half_time(seen.sam, target), half_time(seen.sgd, target)
    return sam is not None and sgd is not None and sam <= PACE * sgd


def _falls(seen: _Seen) -> str:
    start, steps = shown(seen.sam.points[0].loss, LOSS_DIGITS), seen.probe.steps
    ends = f"{_end_loss(seen.sam)} against {_end_loss(seen.sgd)}"
    return f"from {start} to {ends} in {steps} steps"


def confirm(findings: tuple[Finding, ...], probe: Probe, m: Measurements) -> tuple[Finding, ...]:
    """The findings after the probe: those that it contradicts for certain come last, downgraded, and say why.

    The first one is the verdict: the next that holds, or `undecided` where none is left. An `undecided` verdict becomes
    what the probe shows for certain, where it does.
    """
    settled = _settled(findings[0], probe, m) if findings[0].verdict == "undecided" else None
    if settled is not None:
        findings = (settled, *(f for f in findings[1:] if f.verdict != settled.verdict))
    held: list[Finding] = []
    fallen: list[Finding] = []
    reasons: list[str] = []
    for finding in findings:
        reason = contradiction(finding, probe, m)
        if reason is None:
            held.append(finding)
            continue
        reasons.append(f"the measurement says {finding.verdict}, but the test says otherwise: {reason}")
        fallen.append(
            replace(
                finding,
                severity=Severity.INFO,
                confidence=Confidence.LOW,
                message=f"{finding.message} But the test says otherwise: {reason}.",
                contradicted=True,
            )
        )
    if fallen and not held:
        held.append(_undecided(reasons, probe, m))
    return (*held, *fallen)


def _settled(finding: Finding, probe: Probe, m: Measurements) -> Finding | None:
    """What the probe makes of a verdict that the measurement leaves open; None where it is not certain either.

    A run that stands still where SGD's loss falls, at a saddle that its effective radius reverses: `saddle-attraction`.
    One that falls as SGD's does: `descending`. Not where the Hessian products failed their check.
    """
    seen = _Seen.of(probe, m)
    if not m.self_check.passed:
        return None
    held = m.lambda_min.high < 0 and m.effective_radius * abs(m.lambda_min.value or 0.0) > 1.0
    still = seen.stands_still(seen.sam) and not seen.sam.left and not seen.rises(seen.sam)
    if seen.as_well(seen.sam):
        verdict, severity, what = "descending", Severity.INFO, "falls as SGD's does"
    elif held and still:
        verdict, severity, what = "saddle-attraction", Severity.ERROR, "stands still where SGD's falls"
    else:
        return None
    return replace(
        finding,
        verdict=verdict,
        severity=severity,
        confidence=Confidence.MEDIUM,
        message=f"the test decides: as configured the loss {what}, {_falls(seen)}. By itself the measurement leaves it "
        f"open: {finding.message}",
        source="docs/verify.md; docs/theory.md A5, G1",
    )


def _undecided(reasons: list[str], probe: Probe, m: Measurements) -> Finding:
    seen = _Seen.of(probe, m)
    return Finding(
        verdict="undecided",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        evidence={
            "steps": probe.steps,
            "loss": seen.sam.points[0].loss,
            "gain_as_configured": seen.sam.gain,
            "gain_sgd": seen.sgd.gain,
        },
        message="; ".join(reasons) + ".",
        source="docs/verify.md: a prediction that a run contradicts decides nothing",
    )


# ---------------------------------------------------------------- predicted against observed


def compare(m: Measurements, findings: tuple[Finding, ...], probe: Probe) -> tuple[Comparison, ...]:
    """Every prediction that the probe tests, beside what was seen.

    Args:
        m: the measurements.
        findings: as judged before the probe; the first one is the verdict.
        probe: its runs.
    """
    seen, finding = _Seen.of(probe, m), findings[0]
    rows = [_verdict_row(finding, seen, m)]
    if finding.verdict in SADDLES:
        rows += [_steps_row(run, probe) for run in probe.runs if run.expected_steps is not None and run.escapes]
    if seen.prescribed is not None and finding.verdict in STUCK:
        rows.append(_prescription_row(finding.verdict, seen, seen.prescribed))
    return tuple(rows)


def _verdict_row(finding: Finding, seen: _Seen, m: Measurements) -> Comparison:
    predicted, holds = PREDICTIONS.get(finding.verdict, ("nothing", _nothing))
    agrees = holds(seen)
    if contradiction(finding, seen.probe, m) is not None:
        agrees = False
    return Comparison(
        what=f"SAM as configured ({finding.verdict})",
        predicted=predicted,
        observed=f"{_course(seen.sam)}; {_course(seen.sgd)}",
        agrees=agrees,
    )


def _course(run: ProbedRun) -> str:
    """Whether a run left or stayed, and what its loss did."""
    name = {AS_CONFIGURED: "SAM", PRESCRIBED: "the prescription"}.get(run.name, run.name)
    if run.diverged:
        return f"{name} diverges in {run.diverged} of {run.replicates} runs"
    losses = f"loss {shown(run.points[0].loss, LOSS_DIGITS)} → {_end_loss(run)}"
    if not run.left:
        low, high = run.gain_interval
        return f"{name} {'goes down' if low > 0 else 'rises' if high < 0 else 'stays'}, {losses}"
    if run.left < run.replicates:
        return f"{name} leaves in {run.left} of {run.replicates} runs, {losses}"
    return f"{name} leaves after {shown(run.median_escape)} steps, {losses}"


def _end_loss(run: ProbedRun) -> str:
    return shown(run.points[0].loss - run.gain, LOSS_DIGITS)


def _steps_row(run: ProbedRun, probe: Probe) -> Comparison:
    """Predicted steps until the exit against the median that was seen."""
    expected, median = run.expected_steps or 0.0, run.median_escape
    if median is not None:
        observed = f"{shown(median)} steps"
        if run.replicates > 1:
            observed += f", median of {run.replicates}"
        agrees: bool | None = expected / STEPS_FACTOR <= max(median, 1.0) <= expected * STEPS_FACTOR
    else:
        observed = f"not within {probe.steps} steps in {run.replicates - run.left} of {run.replicates} runs"
        agrees = False if probe.steps >= STEPS_FACTOR * expected else None
    return Comparison(
        what=f"steps to leave, {run.name}", predicted=f"{shown(expected)} steps", observed=observed, agrees=agrees
    )


def _prescription_row(verdict: str, seen: _Seen, run: ProbedRun) -> Comparison:
    """Whether the prescription makes progress where the present setting does not, or comes further where it is slow."""
    slow = verdict == "saddle-slowdown"
    return Comparison(
        what="what the prescription changes",
        predicted="it comes further than the present setting"
        if slow
        else "it makes progress where the present setting does not",
        observed=f"{_course(run)}; {_course(seen.sam)}",
        agrees=_comes_further(seen, run) if slow else _makes_progress(seen, run),
    )


def _makes_progress(seen: _Seen, run: ProbedRun) -> bool | None:
    if seen.as_well(seen.sam) or (seen.goes_down(seen.sam) and not seen.stands_still(seen.sam)):
        return None  # the present setting makes progress: see the first row
    if seen.goes_down(run) or (run.median_escape is not None and not seen.sam.left):
        return True
    return False if seen.stands_still(run) else None


def _comes_further(seen: _Seen, run: ProbedRun) -> bool | None:
    """Certainly further by as much as a setting that is not slowed down would be; certainly not as far: False."""
    if seen.sam.gain_interval[1] <= AS_WELL * run.gain_interval[0]:
        return True
    if seen.goes_down(seen.sgd) and run.gain_interval[1] < seen.sam.gain_interval[0]:
        return False
    return True if run.median_escape is not None and seen.sam.median_escape is None else None


def _nothing(_seen: _Seen) -> bool | None:
    return None


def _stays(seen: _Seen) -> bool | None:
    """SAM stands still while SGD goes down, or stays while SGD leaves and its loss falls further."""
    if seen.stands_still(seen.sam):
        return True
    behind = seen.sam.gain_interval[1] < AS_WELL * seen.sgd.gain
    return True if not seen.sam.left and seen.sgd.median_escape is not None and behind else None


def _is_slowed(seen: _Seen) -> bool | None:
    return True if seen.goes_down(seen.sgd) and not _keeps_pace(seen) else None


def _leaves(seen: _Seen) -> bool | None:
    return True if seen.sam.median_escape is not None or seen.goes_down(seen.sam) else None


def _falls_certainly(seen: _Seen) -> bool | None:
    return True if seen.sam.gain_interval[0] > 0 and not seen.sam.diverged else None


def _nothing_to_gain(seen: _Seen) -> bool | None:
    """SGD's pace takes off less than PROGRESS of what is left within HORIZON."""
    if seen.left is None or seen.sgd.diverged or seen.probe.steps == 0:
        return None
    return True if seen.sgd.gain_interval[1] * t.HORIZON / seen.probe.steps <= t.PROGRESS * seen.left else None


def _rises(seen: _Seen) -> bool | None:
    return True if seen.sam.diverged or seen.sam.gain_interval[1] < 0 else None


# what each verdict predicts of the present setting, and the test of it: True, or None where it cannot be told
PREDICTIONS: dict[str, tuple[str, Callable[[_Seen], bool | None]]] = {
    "unstable": ("the loss rises", _rises),
    "hallucinated-minimizer": ("stays, where SGD goes down", _stays),
    "saddle-attraction": ("stays, where SGD leaves", _stays),
    "saddle-slowdown": (f"leaves at least {t.SLOWDOWN:g} times later than SGD", _is_slowed),
    "convergence-floor": ("stays, where SGD goes down", _stays),
    "bounce": ("stays above what SGD reaches", _stays),
    "saddle-escaping": ("leaves", _leaves),
    "descending": ("the loss falls", _falls_certainly),
    "minimum": (f"SGD would not gain {100 * t.PROGRESS:.0f} % in {t.HORIZON} steps either", _nothing_to_gain),
}
