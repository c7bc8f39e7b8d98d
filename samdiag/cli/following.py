"""One run of `samdiag watch`: what is written, kept and run as checkpoints are diagnosed, and how it is ended."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

from samdiag.cli.streams import complain, progress_line, report_width, say, wants_color
from samdiag.errors import EXIT_FINDING, EXIT_INTERRUPTED, EXIT_UNDECIDED, UsageError

if TYPE_CHECKING:
    from samdiag.fleet.apart import Apart
    from samdiag.fleet.entries import Entry
    from samdiag.fleet.finding_command import FindingCommand
    from samdiag.fleet.ledger import Ledger
    from samdiag.fleet.watching import Diagnosed, Event, Watched
    from samdiag.outcomes import Outcome
    from samdiag.preparing import Identity
    from samdiag.types import Diagnosis

Judge = Callable[["Diagnosis"], "Outcome"]


@dataclass(slots=True, kw_only=True)
class Stop:
    """Ctrl-C and SIGTERM: while nothing is in hand they end the watch at once, else after what is in hand."""

    in_hand: bool = False
    asked: bool = False

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Inside, signals are answered so."""
        if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked or not self.in_hand:
            raise KeyboardInterrupt
        self.asked = True
        say("samdiag: interrupted; the checkpoint in hand is finished first (Ctrl-C again to stop at once)")


@dataclass(slots=True, kw_only=True)
class Following:
    """One watch, and what came of it so far."""

    watched: Watched
    session: Apart
    judge: Judge
    ledger: Ledger | None
    command: FindingCommand | None
    format: str
    exit_on_finding: bool
    quiet: int
    device_said: bool
    stop: Stop = field(default_factory=Stop)
    codes: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    headed: bool = False  # the names of the columns were written
    alerted: set[tuple[str, str, str]] = field(default_factory=set)

    def go(self) -> int:
        """Follows the folders to the end of the watch; the exit code."""
        from samdiag.fleet.clock import SystemClock
        from samdiag.fleet.watching import Means, watch
        from samdiag.gates import worst

        for note in self.ledger.notes if self.ledger is not None else ():
            self._tell(f"note: {note}")
        known = None if self.ledger is None else self._known
        means = Means(identify=self.session.identify, inspect=self._inspect, known=known)
        failed = False
        try:
            with self.stop.answering():
                for event in watch(self.watched, means, SystemClock()):
                    failed = self._answer(event) or failed
                    if failed and self.exit_on_finding:
                        self._tell("samdiag: the watch ends: a checkpoint fails the gate (--exit-on-finding)")
                        break
                    if self.stop.asked:
                        break
        except KeyboardInterrupt:
            self.stop.asked = True
        self._say_end()
        return EXIT_INTERRUPTED if self.stop.asked else worst(self.codes)

    def _answer(self, event: Event) -> bool:
        """What is written and run for one event; whether a checkpoint failed the gate just now."""
        from samdiag.fleet.watching import Begun, Diagnosed, Ended, Noted

        match event:
            case Begun():
                self.stop.in_hand = True
                if event.waiting:
                    self._tell(f"samdiag: {event.path} is being diagnosed; {event.waiting} more in line")
                return False
            case Diagnosed():
                failed = self._take(event)
                self.stop.in_hand = False
                return failed
            case Noted():
                self.stop.in_hand = False
                self._tell(f"samdiag: {event.path} {event.text}")
            case Ended():
                if event.left:  # what was seen and not diagnosed is a gap
                    self.codes.add(EXIT_UNDECIDED)
                for path, reason in event.left:
                    self._tell(f"samdiag: {path} is not diagnosed: {reason}")
                self._tell(f"samdiag: the watch ends: {event.reason}")
        return False

    def _take(self, event: Diagnosed) -> bool:
        """Keeps, writes and judges a diagnosis; whether it was made now and fails the gate."""
        outcome = self.judge(event.diagnosis)
        self.codes.add(outcome.exit_code)
        if event.known:
            self.counts["known from the history"] += 1
            return False
        self.counts["failed" if event.diagnosis.failure else event.diagnosis.verdict] += 1
        try:
            if self.ledger is not None:
                self.ledger.append(event.diagnosis)
        finally:  # where the disk is full, it is at least shown
            if self.quiet < 2:
                self._write(outcome)
        self._warn_of_device(event.diagnosis)
        self._alert(outcome)
        return outcome.exit_code == EXIT_FINDING

    def _write(self, outcome: Outcome) -> None:
        from samdiag.reports import fleet_text, json_lines

        if self.format == "json":
            text = json_lines.render(outcome.diagnosis)
        else:
            color = wants_color(sys.stdout)
            text = fleet_text.line(outcome, width=report_width(), color=color)
            if not self.headed:
                text, self.headed = f"{fleet_text.header(width=report_width(), color=color)}\n{text}", True
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if self.format == "json" and outcome.diagnosis.failure is not None:
            failure = outcome.diagnosis.failure
            complain(UsageError(failure.what, failure.todo))

    def _alert(self, outcome: Outcome) -> None:
        """Runs the user's command where something fails the gate that it was not told of yet."""
        from samdiag.fleet.finding_command import describe

        checkpoint = outcome.diagnosis.checkpoint
        if self.command is None or checkpoint is None:
            return
        keys = {hit: (checkpoint.path, checkpoint.fingerprint or "", hit.name) for hit in outcome.hits}
        new = [hit for hit, key in keys.items() if key not in self.alerted]
        if not new:
            return
        self.alerted.update(keys.values())
        problem = self.command.run(describe(outcome, new))
        if problem is not None:
            say(f"samdiag: --on-finding for {checkpoint.path} {problem}; the watch goes on")

    def _warn_of_device(self, diagnosis: Diagnosis) -> None:
        device = diagnosis.environment.get("device", "")
        if device.startswith("cuda") and not self.device_said:
            self.device_said = True
            self._tell(f"note: measured on {device}, which the training may need: --device cpu leaves it alone")

    def _say_end(self) -> None:
        counted = ", ".join(f"{count} {what}" for what, count in self.counts.most_common())
        how = "interrupted; " if self.stop.asked else ""
        self._tell(f"samdiag: {how}{counted or 'no checkpoint was diagnosed'}")

    def _tell(self, text: str) -> None:
        if not self.quiet:
            say(text)

    def _known(self, entry: Entry, identity: Identity) -> Diagnosis | None:
        from samdiag import __version__

        assert self.ledger is not None
        return self.ledger.done(entry.path, identity, __version__)

    def _inspect(self, entry: Entry) -> Diagnosis:
        shown = sys.stderr.isatty() and not self.quiet
        with progress_line(shown) as progress, contextlib.redirect_stdout(sys.stderr):  # stdout is the report's
            return self.session.inspect(entry, progress=progress)
