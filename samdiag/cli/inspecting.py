"""Going through a list of checkpoints: what is written when, and the exit code of the whole."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from samdiag.cli import emitted
from samdiag.cli.interrupts import Finishing, interruptible
from samdiag.cli.list_progress import ListProgress, list_progress
from samdiag.cli.report_files import ReportFile, append_step_summary, write_reports
from samdiag.cli.spool import Spool
from samdiag.cli.streams import ReportOutput, complain, no_commands, report_width, say, wants_color
from samdiag.errors import EXIT_INTERRUPTED, SamdiagError, UsageError
from samdiag.outcomes import Outcome
from samdiag.patience import Patience
from samdiag.reports.media import MEDIA

if TYPE_CHECKING:
    from samdiag.fleet.entries import Asked, Entry
    from samdiag.fleet.ledger import Ledger
    from samdiag.fleet.running import Made, Run
    from samdiag.gates import Baseline, Gate, Known
    from samdiag.types import Diagnosis

KEPT_SETTINGS = ("measure.seed",)  # what the summary of a list looks at


@dataclass(frozen=True, slots=True, kw_only=True)
class Gating:
    """What every checkpoint is held to, beside its project's own `[gate]`.

    Attributes:
        fail_on, require, strict_spec: of the command line; None: it does not say.
        baseline: what is known already; None: nothing.
        update: where the baseline is written in the end; None: it is not.
    """

    fail_on: Sequence[str] | None = None
    require: Sequence[str] | None = None
    strict_spec: bool | None = None
    baseline: Baseline | None = None
    update: Path | None = None

    def gate(self, diagnosis: Diagnosis) -> Gate:
        """The gate of one checkpoint.

        Raises:
            UsageError: its project's `[gate]` does not parse.
        """
        from samdiag.gates import gate_of

        return gate_of(
            diagnosis,
            fail_on=self.fail_on,
            require=self.require,
            baseline=self.baseline,
            strict_spec=self.strict_spec,
        )

    def judge(self, diagnosis: Diagnosis, *, seed: int | None = None) -> Outcome:
        """What the gate makes of it; with `update` the baseline knows it already."""
        gate = self.gate(diagnosis)
        return gate.judge(diagnosis, seed=seed) if self.update is None else gate.judge_updated(diagnosis, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a call of `inspect` does.

    Attributes:
        entries: in order.
        many: whether it is a list, whatever its length.
        asked: about each entry.
        gating: what they are held to.
        format, output: of the report that is written as the records come; `output` None: stdout.
        reports: files written at the end.
        resume: the ledger; None: none.
        num_workers: processes; 0: this one.
        each: a list's text is the full report of each.
        theory, emit, quiet: as on the command line.
    """

    entries: Sequence[Entry]
    many: bool
    asked: Asked
    gating: Gating
    format: str = "text"
    output: Path | None = None
    reports: Sequence[ReportFile] = ()
    resume: Path | None = None
    num_workers: int = 0
    each: bool = False
    theory: bool = False
    emit: Path | None = None
    quiet: int = 0

    @property
    def paths(self) -> list[str]:
        return [entry.path for entry in self.entries]

    @property
    def at_the_end(self) -> bool:
        """Whether a report needs all records at once."""
        return bool(self.reports) or not MEDIA[self.format].streaming


class Inspecting:
    """One call over a list. What was finished before an interruption has been written."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._finishing = Finishing()
        self._patience = Patience()
        self._outcomes: list[Outcome] = []  # without what only a full report shows: they are held to the end
        self._noted: dict[str, Known] = {}
        self._num_reused = 0
        self._spool: Spool | None = None
        self._sink: ReportOutput | None = None
        self._records: Ledger | None = None
        self._progress = ListProgress(None)
        self._terminal = sys.stdout.isatty()
        self._color = plan.output is None and wants_color(sys.stdout)

    def go(self) -> int:
        """The exit code of the whole run."""
        from samdiag.gates import worst

        plan = self.plan
        if plan.emit is not None:
            emitted.check_target(plan.emit, plan.paths, plan.output)
        with ExitStack() as stack:
            ledger = self._ledger(stack)
            self._open(stack)
            stopped: SamdiagError | None = None
            try:
                with self._ctrl_c(), contextlib.redirect_stdout(sys.stderr):  # stdout is the report's
                    for made in self._run(ledger).records():
                        self._take(made)
                interrupted = self._finishing.asked or self._patience.interrupted
            except KeyboardInterrupt:
                interrupted = True
            except SamdiagError as error:  # e.g. the disk is full: what was finished is reported all the same
                stopped, interrupted = error, False
            try:
                self._finish()
            except SamdiagError as error:
                stopped = stopped or error
        if stopped is not None:
            complain(stopped)
            return worst({stopped.exit_code, self.code})
        if interrupted:
            done = len(self._outcomes) - (self._patience.interrupted and not plan.many)
            say(f"samdiag: interrupted; {done} of {len(plan.entries)} checkpoint(s) finished")
            return EXIT_INTERRUPTED
        return self.code

    # ------------------------------------------------------------------------------------------------ opening

    def _ledger(self, stack: ExitStack) -> Ledger | None:
        """What was finished before, open for more."""
        from samdiag.fleet.ledger import Ledger, tried_again
        from samdiag.fleet.session import Session

        plan = self.plan
        if plan.resume is None:
            return None
        if plan.output is not None and plan.output.absolute() == plan.resume.absolute():
            raise UsageError(
                f"--resume and --output both name {plan.resume}", "leave out --output: the records go there anyway"
            )
        session = stack.enter_context(Session(plan.asked))
        ledger = stack.enter_context(Ledger(plan.resume, again=tried_again(plan.entries, session.identify)))
        for note in ledger.notes:
            self._say(f"note: {note}")
        return ledger

    def _open(self, stack: ExitStack) -> None:
        """The streamed report's place, and that of the records for the reports at the end."""
        from samdiag.fleet.ledger import Ledger

        plan = self.plan
        if plan.at_the_end:
            self._spool = stack.enter_context(contextlib.closing(Spool()))
        if plan.many and plan.format == "json" and plan.output is not None:
            ReportOutput(plan.output, plan.paths)  # refuses one of the checkpoints
            self._records = stack.enter_context(Ledger(plan.output, fresh=True))
        elif MEDIA[plan.format].streaming:
            self._sink = stack.enter_context(contextlib.closing(ReportOutput(plan.output, plan.paths)))

    @contextlib.contextmanager
    def _ctrl_c(self) -> Iterator[None]:
        plan = self.plan
        handling = self._finishing.on_ctrl_c() if plan.many else interruptible(self._patience)
        total = len(plan.entries) if plan.many else None
        with handling, list_progress(total, shown=sys.stderr.isatty() and not plan.quiet) as self._progress:
            yield

    def _run(self, ledger: Ledger | None) -> Run:
        from samdiag.fleet.running import Run

        plan = self.plan
        return Run(
            entries=plan.entries,
            asked=plan.asked,
            ledger=ledger,
            num_workers=plan.num_workers,
            stop=self._finishing,
            progress=self._stage,
            announce=None if plan.quiet else say,
            patience=None if plan.many else self._patience,
        )

    def _stage(self, entry: Entry, what: str, count: int) -> None:
        if self.plan.num_workers:
            self._progress.stage_of(entry, what, count)
        else:
            self._progress.stage(what, count)

    # ------------------------------------------------------------------------------------------------ every record

    def _take(self, made: Made) -> None:
        """Judges, writes and remembers one record."""
        plan, diagnosis, seed = self.plan, made.diagnosis, made.entry.seed
        outcome = self._judged(diagnosis, seed)
        self._progress.finish(failed=diagnosis.failure is not None, resumed=made.reused)
        self._outcomes.append(_lighter(outcome))  # first: it counts for the exit code, whatever becomes of the report
        with self._progress.aside():
            self._write(outcome)
        if self._spool is not None:
            self._spool.add(diagnosis, seed)
        if plan.emit is not None and diagnosis.failure is None:
            emitted.write_settings(plan.emit, diagnosis)
        if plan.gating.update is not None:
            self._noted |= plan.gating.gate(diagnosis).noted(diagnosis, seed=seed)
        self._num_reused += made.reused

    def _judged(self, diagnosis: Diagnosis, seed: int | None) -> Outcome:
        try:
            return self.plan.gating.judge(diagnosis, seed=seed)
        except UsageError as error:  # its project's own [gate]
            complain(error)
            return Outcome(diagnosis=diagnosis, exit_code=error.exit_code)

    def _write(self, outcome: Outcome) -> None:
        from samdiag.reports import fleet_text, json_lines

        plan, diagnosis = self.plan, outcome.diagnosis
        if self._records is not None:
            self._records.append(diagnosis)
        elif self._sink is None or (plan.quiet >= 2 and plan.output is None):
            pass
        elif plan.format == "json":
            self._sink.write(json_lines.render(diagnosis, indent=None if plan.many else 2))
        elif plan.many and not plan.each:
            if len(self._outcomes) == 1:
                self._sink.write(fleet_text.header(width=self._line_width, color=self._color))
            self._sink.write(no_commands(fleet_text.line(outcome, width=self._line_width, color=self._color)))
            return  # a failure's reason is in its line
        elif diagnosis.failure is None:
            self._write_in_full(outcome)
        if diagnosis.failure is not None and (plan.quiet < 2 or plan.output is not None):
            _complain_of(diagnosis)

    def _write_in_full(self, outcome: Outcome) -> None:
        from samdiag.reports import gate_text, text, theory, training_code

        assert self._sink is not None
        plan, diagnosis = self.plan, outcome.diagnosis
        self._sink.write(no_commands(text.render(diagnosis, width=self._width, color=self._color)))
        if gate := gate_text.render(outcome, width=self._width, color=self._color):
            self._sink.write("\n" + no_commands(gate))
        if plan.theory:
            self._sink.write("\n" + theory.render(diagnosis, width=self._width, color=self._color))
        if plan.emit is not None and (code := training_code.render(diagnosis)):
            self._sink.write("\n" + code)

    @property
    def _width(self) -> int:
        return report_width()

    @property
    def _line_width(self) -> int | None:
        """Of a list's lines: in a pipe or a file there is no edge, and paths are whole."""
        return report_width() if self.plan.output is None and self._terminal else None

    # ------------------------------------------------------------------------------------------------ the end

    def _finish(self) -> None:
        """What speaks of all records that there are, also after an interruption."""
        from samdiag.gates import update_baseline
        from samdiag.reports import fleet_text

        plan = self.plan
        missing = len(plan.entries) - len(self._outcomes)
        if plan.many and plan.format == "text" and self._sink is not None and (plan.quiet < 2 or plan.output):
            summed = fleet_text.summary(self._outcomes, missing=missing, width=self._width, color=self._color)
            self._sink.write("\n" + no_commands(summed))
        if self._num_reused:
            self._say(f"samdiag: {self._num_reused} of {len(plan.entries)} record(s) were in {plan.resume} already")
        if self._spool is not None:
            outcomes = list(self._spool.outcomes(self._judged))
            self._write_whole(outcomes, missing)
        if plan.gating.update is not None and self._noted:
            update_baseline(plan.gating.update, self._noted)
            self._say(f"samdiag: {plan.gating.update} now holds {len(self._noted)} of these checkpoints")

    def _write_whole(self, outcomes: Sequence[Outcome], missing: int) -> None:
        """The reports that speak of all records: to stdout or --output, and each --report."""
        plan = self.plan
        if not MEDIA[plan.format].streaming and (plan.quiet < 2 or plan.output is not None):
            sink = ReportOutput(plan.output, plan.paths)
            sink.write(MEDIA[plan.format].render(outcomes, missing=missing))
            sink.close()
            if plan.format == "github":
                append_step_summary(outcomes, missing=missing)
        write_reports(plan.reports, outcomes, missing=missing)

    @property
    def code(self) -> int:
        """Of what was judged so far: each checkpoint is held to its own settings' gate; `--fail-on` is for all."""
        from samdiag.gates import exit_code_of

        return exit_code_of(self._outcomes)

    def _say(self, line: str) -> None:
        if not self.plan.quiet:
            say(line)


def _lighter(outcome: Outcome) -> Outcome:
    """The outcome with as much of the diagnosis as a summary looks at: ten thousand are remembered."""
    diagnosis = outcome.diagnosis
    settings = {name: diagnosis.settings[name] for name in KEPT_SETTINGS if name in diagnosis.settings}
    light = replace(
        diagnosis, measurements=None, prescription=None, probe=None, settings=settings, warnings=(), environment={}
    )
    return replace(outcome, diagnosis=light)


def _complain_of(diagnosis: Diagnosis) -> None:
    """Why there is no diagnosis of a checkpoint, and what to do, on stderr."""
    assert diagnosis.failure is not None
    where = f"{diagnosis.checkpoint.path}: " if diagnosis.checkpoint else ""
    what = diagnosis.failure.what
    say(f"samdiag: {what if what.startswith(where.removesuffix(': ')) else where + what}")
    for line in diagnosis.failure.todo.splitlines():
        say(f"  {line}")
