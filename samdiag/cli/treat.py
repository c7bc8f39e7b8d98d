"""`samdiag treat`: follow the prescription from a checkpoint and write what comes of it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from samdiag.cli import flags
from samdiag.cli.streams import (
    complain,
    progress_line,
    report_width,
    say,
    steady_streams,
    told,
    wants_color,
)
from samdiag.errors import EXIT_FINDING, EXIT_INTERRUPTED, EXIT_OK, EXIT_UNDECIDED, UsageError

if TYPE_CHECKING:
    from samdiag.treatment import Treatment

HOW = "How far to go"
ROUNDS = 5  # as in samdiag.treating, which imports more than --help may


@flags.with_settings
def treat(
    context: typer.Context,
    checkpoint: flags.Checkpoint,
    rho: Annotated[str | None, flags.flag("--rho", help="SAM's radius.", panel=flags.SAM)] = None,
    config: flags.Config = None,
    rounds: Annotated[
        int, flags.flag("--rounds", help="Prescriptions that are followed, one after the other.", panel=HOW)
    ] = ROUNDS,
    steps: Annotated[
        int | None,
        flags.flag(
            "--steps",
            help="Of a round whose prescription says none. (default: 500, or twice the predicted escape time)",
            panel=HOW,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        flags.flag(
            "--out",
            help="The new checkpoint, .safetensors or .pt; it must not exist. (default: NAME.treated.safetensors)",
            panel=flags.OUT,
        ),
    ] = None,
    log: Annotated[
        Path | None,
        flags.flag("--log", help="JSON Lines, one a round. (default: beside the new checkpoint)", panel=flags.OUT),
    ] = None,
    quiet: flags.Quiet = 0,
) -> None:
    """Follow the prescription from a checkpoint, diagnose again, and write the new weights beside the old ones.

    The old file is never touched. Exit code 0: rescued, or nothing to treat; 1: not rescued; 2: usage; 3: it could not
    be diagnosed or written; 130: interrupted, with the best weights so far written (docs/treat.md).
    """
    steady_streams()
    overrides = flags.said(context)
    with told("samdiag: interrupted before anything was written"):
        if rho is not None:
            overrides["sam.rho"] = flags.number(rho, "--rho")
        found = _treat(context, checkpoint, overrides, config, rounds, steps, out, log, quiet)
        code = _report(found, quiet or flags.quiet_variable())
    raise typer.Exit(code)


def _treat(
    context: typer.Context,
    checkpoint: str,
    overrides: dict[str, object],
    config: str | None,
    rounds: int,
    steps: int | None,
    out: Path | None,
    log: Path | None,
    quiet: int,
) -> Treatment:
    from samdiag.treating import treat as follow

    with (
        progress_line(sys.stderr.isatty() and not quiet) as progress,
        contextlib.redirect_stdout(sys.stderr),  # stdout is the report's
        _writing_first(),
    ):
        return follow(
            checkpoint,
            overrides=overrides,
            sources=flags.from_environment(context, overrides),
            config=config,
            rounds=rounds,
            steps=steps,
            out=out,
            log=log,
            tell=_teller(quiet or flags.quiet_variable()),
            progress=progress,
        )


@contextlib.contextmanager
def _writing_first() -> Iterator[None]:
    """Inside, the first Ctrl-C ends the treatment, the second waits until what is known is written, the third does
    not.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    pressed = 0

    def handle(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed != 2:
            raise KeyboardInterrupt
        say("samdiag: writing what is known (Ctrl-C again to stop at once)")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _teller(quiet: int) -> Callable[[str], None] | None:
    return None if quiet else say


def _report(found: Treatment, quiet: int) -> int:
    """The report on stdout, a failure on stderr; the exit code."""
    from samdiag.reports import treat_text
    from samdiag.treatment import Outcome

    if quiet < 2 and (found.rounds or found.outcome is not Outcome.FAILED):
        sys.stdout.write(treat_text.render(found, width=report_width(), color=wants_color(sys.stdout)) + "\n")
        sys.stdout.flush()
    if found.failure is not None:
        complain(UsageError(found.failure.what, found.failure.todo))
    return exit_code(found)


def exit_code(found: Treatment) -> int:
    """0: rescued or nothing to treat; 1: not rescued; 130: interrupted; an error's own code; 3: nothing was decided."""
    from samdiag.treatment import Outcome

    if found.outcome is Outcome.INTERRUPTED:
        return EXIT_INTERRUPTED
    if found.failure is not None:
        return EXIT_UNDECIDED if found.rounds else found.failure.exit_code
    if found.rescued:
        return EXIT_OK
    undecided = not found.rounds and found.before is not None and found.before.verdict == "undecided"
    return EXIT_UNDECIDED if undecided else EXIT_FINDING
