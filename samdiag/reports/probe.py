"""The dynamics probe as rows: what was tried, what came of it, and what had been predicted."""

from __future__ import annotations

from samdiag.probes import Probe, ProbedRun
from samdiag.reports.escape import printable
from samdiag.reports.numbers import count, number, seconds
from samdiag.reports.rows import ComparedRow, TriedModel, TriedRow

MARKS = {True: "✔", False: "✖", None: "?"}


def tried_model(probe: Probe) -> TriedModel:
    """All rows of the probe."""
    return TriedModel(
        runs=tuple(_run_row(run) for run in probe.runs),
        comparisons=tuple(
            ComparedRow(
                mark=MARKS[c.agrees],
                what=printable(c.what),
                predicted=printable(c.predicted),
                observed=printable(c.observed),
            )
            for c in probe.comparisons
        ),
        remark=_remark(probe),
        notes=tuple(printable(note) for note in probe.notes),
    )


def _run_row(run: ProbedRun) -> TriedRow:
    first, last = run.points[0], run.points[-1]
    end = first.loss - run.gain
    return TriedRow(
        name=printable(run.name),
        setting=_setting(run),
        loss=f"{number(first.loss)} → {number(end)}",
        grad_norm=f"{number(first.grad_norm, digits=2)} → {number(last.grad_norm, digits=2)}",
        outcome=_outcome(run),
    )


def _setting(run: ProbedRun) -> str:
    """What was run: its schedule, or rho and what else tells the runs apart."""
    if run.schedule is not None:
        return printable(run.schedule)
    parts = [f"rho {number(run.rho)}", f"lr {number(run.lr)}"]
    if run.momentum:
        parts.append(f"momentum {number(run.momentum)}")
    parts.append("full batch" if run.batch_size is None else f"batch {count(run.batch_size)}")
    if run.micro_batch is not None:
        parts.append(f"micro-batch {count(run.micro_batch)}")
    return ", ".join(parts)


def _outcome(run: ProbedRun) -> str:
    if run.diverged:
        return f"diverged in {run.diverged} of {run.replicates}" if run.replicates > 1 else "diverged"
    if run.median_escape is not None and run.left == run.replicates:
        return f"leaves after {number(run.median_escape, digits=3)} steps"
    if run.left:
        return f"leaves in {run.left} of {run.replicates}"
    if run.gain_interval[0] > 0:
        return "goes down"
    return "rises" if run.gain_interval[1] < 0 else "stays"


def _remark(probe: Probe) -> str:
    """How long, how often, and from which momentum."""
    wanted = f" of {count(probe.asked_steps)} wanted" if probe.steps < probe.asked_steps else ""
    parts = [f"{count(probe.steps)} steps{wanted} from the checkpoint, in memory"]
    if probe.replicates > 1:
        parts.append(f"means of {probe.replicates} data orders")
    if probe.momentum_from_file:
        parts.append("momentum from the file")
    parts.append(seconds(probe.seconds))
    return ", ".join(parts)
