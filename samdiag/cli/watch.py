"""`samdiag watch`: a live run's folder, each checkpoint as it is saved."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samdiag.cli import completion, flags, list_flags
from samdiag.cli.following import Following, Judge
from samdiag.cli.streams import steady_streams, told
from samdiag.errors import UsageError

if TYPE_CHECKING:
    from samdiag.fleet.finding_command import FindingCommand
    from samdiag.fleet.ledger import Ledger
    from samdiag.fleet.watching import Watched
    from samdiag.gates import Baseline
    from samdiag.outcomes import Outcome
    from samdiag.types import Diagnosis

WHAT = "What is watched, and for how long"


@flags.with_settings
def watch(
    context: typer.Context,
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR…", help="Folders that runs save their checkpoints in.", autocompletion=completion.checkpoints
        ),
    ],
    rho: Annotated[str | None, flags.flag("--rho", help="SAM's radius.", panel=flags.SAM)] = None,
    config: flags.Config = None,
    match: list_flags.Match = None,
    interval: Annotated[str, flags.flag("--interval", help="Between two looks at the folders.", panel=WHAT)] = "10s",
    settle: Annotated[
        str, flags.flag("--settle", help="A checkpoint's files must not have changed for so long.", panel=WHAT)
    ] = "5s",
    overdue: Annotated[
        str,
        flags.flag("--overdue", help="An incomplete one that nobody writes to for so long is an error.", panel=WHAT),
    ] = "10m",
    newest: Annotated[
        bool, flags.flag("--newest", help="Of several that wait, only the newest; the others are skipped.", panel=WHAT)
    ] = False,
    once: Annotated[bool, flags.flag("--once", help="Diagnose what is there now, and end.", panel=WHAT)] = False,
    idle_exit: Annotated[
        str | None, flags.flag("--idle-exit", help="End when nothing has changed for so long: 30m.", panel=WHAT)
    ] = None,
    until_file: Annotated[
        str | None,
        flags.flag(
            "--until-file", help="End when a file of this name is in every folder, or at this path.", panel=WHAT
        ),
    ] = None,
    history: Annotated[
        Path | None,
        flags.flag("--history", help="JSON Lines: read first, what is in it is not made again.", panel=flags.OUT),
    ] = None,
    format: flags.Format = "text",
    fail_on: Annotated[
        str | None,
        flags.flag(
            "--fail-on",
            help="Verdicts that exit 1: a list, any, never. (default: severity error)",
            panel=flags.OUT,
            autocompletion=completion.fail_on,
        ),
    ] = None,
    require: list_flags.Require = None,
    baseline: list_flags.BaselineFile = None,
    strict_spec: list_flags.StrictSpec = False,
    exit_on_finding: Annotated[
        bool, flags.flag("--exit-on-finding", help="End with 1 at the first that fails the gate.", panel=flags.OUT)
    ] = False,
    on_finding: Annotated[
        str | None,
        flags.flag(
            "--on-finding",
            help="Run this program then, with the record as JSON on its stdin; no shell.",
            panel=flags.OUT,
        ),
    ] = None,
    on_finding_timeout: Annotated[
        str, flags.flag("--on-finding-timeout", help="After which that program is ended.", panel=flags.OUT)
    ] = "60s",
    quiet: flags.Quiet = 0,
) -> None:
    """Follow a live run's folder: diagnose every checkpoint once it is complete, and again when it is rewritten.

    Exit code, of all that was diagnosed: 0: nothing fails the gate; 1: something does; 2: usage; 3: something could not
    be decided, or nothing was diagnosed; 130: interrupted (docs/watch.md).
    """
    steady_streams()
    overrides = flags.said(context)
    with told():
        flags.check_format(format)
        if rho is not None:
            overrides["sam.rho"] = flags.number(rho, "--rho")
        if fail_on is not None:
            overrides["gate.fail_on"] = flags.parse_names(fail_on)
        code = _watch(
            _watched(
                folders,
                match=list_flags.several(context, "match", match),
                interval=flags.seconds(interval, "--interval"),
                settle=flags.seconds(settle, "--settle"),
                overdue=flags.seconds(overdue, "--overdue"),
                newest=newest,
                once=once,
                idle_exit=None if idle_exit is None else flags.seconds(idle_exit, "--idle-exit"),
                until_file=until_file,
            ),
            asked={
                "overrides": overrides,
                "sources": flags.from_environment(context, overrides),
                "config": config,
            },
            judge=_judge(
                overrides.get("gate.fail_on"),
                list_flags.several(context, "require", require),
                baseline,
                strict_spec or None,
            ),
            command=_command(on_finding, flags.seconds(on_finding_timeout, "--on-finding-timeout")),
            history=history,
            format=format,
            exit_on_finding=exit_on_finding,
            quiet=quiet or flags.quiet_variable(),
        )
    raise typer.Exit(code)


def _watched(folders: list[str], *, match: list[str] | None, **more: Any) -> Watched:
    """What is watched.

    Raises:
        UsageError: a folder is none, a pattern cannot be read, or the ways to end contradict each other.
    """
    from samdiag.fleet.patterns import matcher
    from samdiag.fleet.watching import Watched
    from samdiag.quoting import shown

    for folder in folders:
        if not os.path.isdir(folder):
            what = f"{shown(folder)} is not a folder" if os.path.lexists(folder) else f"{shown(folder)} does not exist"
            raise UsageError(what, f"name the folder that the run saves in; before it starts: mkdir -p {shown(folder)}")
    if more["once"] and (more["idle_exit"] is not None or more["until_file"] is not None):
        raise UsageError("--once ends by itself", "leave out --idle-exit and --until-file, or --once")
    fits = [matcher(pattern) for pattern in match or ()]
    return Watched(
        roots=tuple(dict.fromkeys(str(Path(folder)) for folder in folders)),
        wanted=(lambda path: any(fit(path) for fit in fits)) if fits else None,
        **more,
    )


def _judge(
    fail_on: list[str] | None, require: list[str] | None, baseline: Path | None, strict_spec: bool | None
) -> Judge:
    """What judges each diagnosis.

    Raises:
        UsageError: a list that does not parse, or a baseline that cannot be read: at once, not hours later.
    """
    from samdiag.gates import gate_of, load_baseline, parse_fail_on, parse_requirements

    parse_fail_on(fail_on)
    parse_requirements(require)
    known: Baseline | None = None if baseline is None else load_baseline(baseline)

    def judge(diagnosis: Diagnosis) -> Outcome:
        gate = gate_of(diagnosis, fail_on=fail_on, require=require, baseline=known, strict_spec=strict_spec)
        return gate.judge(diagnosis)

    return judge


def _command(text: str | None, limit: float) -> FindingCommand | None:
    from samdiag.fleet.finding_command import parse_command

    return None if text is None else parse_command(text, limit)


def _watch(
    watched: Watched,
    *,
    asked: dict[str, Any],
    judge: Judge,
    command: FindingCommand | None,
    history: Path | None,
    format: str,
    exit_on_finding: bool,
    quiet: int,
) -> int:
    """The exit code of a whole watch."""
    from samdiag.fleet.apart import Apart
    from samdiag.fleet.entries import Asked

    with contextlib.ExitStack() as stack:
        ledger = None if history is None else stack.enter_context(_open_history(history, watched.roots))
        session = stack.enter_context(Apart(Asked(**asked)))
        run = Following(
            watched=watched,
            session=session,
            judge=judge,
            ledger=ledger,
            command=command,
            format=format,
            exit_on_finding=exit_on_finding,
            quiet=quiet,
            device_said="measure.device" in asked["overrides"],
        )
        return run.go()


def _open_history(path: Path, roots: tuple[str, ...]) -> Ledger:
    """The history; failures in it of checkpoints that are still in the watched folders are made again."""
    from samdiag.fleet.ledger import Ledger

    inside = tuple(os.path.join(root, "") for root in roots)
    here = os.curdir in roots
    return Ledger(path, again=lambda key: (here or key.path.startswith(inside)) and os.path.exists(key.path))
