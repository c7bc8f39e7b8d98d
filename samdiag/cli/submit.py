"""`samdiag submit`: a list as jobs of Slurm, or of this machine, and their results as one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samdiag.cli import flags
from samdiag.cli.list_flags import several
from samdiag.cli.list_progress import list_progress
from samdiag.cli.passing_on import Asked, list_paths, read
from samdiag.cli.streams import say, steady_streams, told
from samdiag.errors import EXIT_UNDECIDED, EXIT_USAGE, UsageError
from samdiag.quoting import listed
from samdiag.suggesting import did_you_mean

if TYPE_CHECKING:
    from samdiag.fleet.desk import Desk
    from samdiag.fleet.slurm import Ended, Submitted, Wanted

JOBS = "Jobs"
LIST = ("checkpoints", "files_from", "null", "match", "every", "last")  # the list is made once, here
AT_THE_END = ("fail_on", "require", "baseline", "strict_spec", "report", "format", "output")  # `merge` has them too


def submit(
    context: typer.Context,
    inspection: Annotated[
        list[str], typer.Argument(metavar="-- CKPT… [OPTIONS]", help="As for `samdiag inspect`: a list, and options.")
    ],
    jobs: Annotated[int, flags.flag("--jobs", help="Shares of the list, each a job.", panel=JOBS)] = 8,
    cluster: Annotated[
        str, flags.flag("--cluster", help="slurm, local, or auto: Slurm where it is, else this machine.", panel=JOBS)
    ] = "auto",
    timeout_min: Annotated[
        int, flags.flag("--timeout-min", help="Minutes of a job; what is left is queued again.", panel=JOBS)
    ] = 60,
    partition: Annotated[str | None, flags.flag("--partition", help="Of Slurm.", panel=JOBS)] = None,
    gpus: Annotated[int | None, flags.flag("--gpus", help="GPUs of a job.", panel=JOBS)] = None,
    cpus: Annotated[int | None, flags.flag("--cpus", help="CPUs of a job.", panel=JOBS)] = None,
    mem: Annotated[float | None, flags.flag("--mem", help="Memory of a job, in GB.", panel=JOBS)] = None,
    setup: Annotated[
        list[str] | None,
        flags.flag("--setup", help="A shell command before each job: 'module load cuda'. May be repeated.", panel=JOBS),
    ] = None,
    folder: Annotated[
        Path, flags.flag("--folder", help="For scripts, logs and results; where all nodes see it.", panel=JOBS)
    ] = Path("samdiag-jobs"),
    wait: Annotated[
        bool, flags.flag("--wait/--no-wait", help="Follow the jobs, then merge and judge.", panel=JOBS)
    ] = True,
    quiet: flags.Quiet = 0,
) -> None:
    """Diagnose a list as jobs of Slurm, or of this machine: samdiag submit --jobs 8 -- runs/ --rho 0.05

    Each job is `samdiag inspect … --shard i/n`; the same command again goes on where they stopped. Exit codes as for
    `inspect`, over all records.
    """
    steady_streams()
    with told():
        from samdiag.fleet.desk import Desk
        from samdiag.fleet.slurm import CLUSTERS, Wanted

        if cluster not in CLUSTERS:
            what = f"--cluster {cluster!r} is unknown{did_you_mean(cluster, CLUSTERS)}"
            raise UsageError(what, f"choose {', '.join(CLUSTERS)}")
        for name, number in (("jobs", jobs), ("timeout-min", timeout_min), ("cpus", cpus), ("mem", mem)):
            if number is not None and number <= 0:
                raise UsageError(f"--{name} {number} is not positive", f"give a positive number: --{name} 4")
        asked = read(inspection)
        entries, notes = list_paths(asked)
        paths = tuple(dict.fromkeys(entries))
        desk = Desk(folder=folder.absolute(), paths=paths, count=min(jobs, len(paths)))
        wanted = Wanted(
            cluster=cluster,
            minutes=timeout_min,
            partition=partition,
            gpus=gpus,
            cpus=cpus,
            memory=mem,
            setup=several(context, "setup", setup) or (),
        )
        quiet = quiet or flags.quiet_variable()
        for note in () if quiet else notes:
            say(f"note: {note}")
        call = _Submit(asked=asked, desk=desk, wanted=wanted, num_entries=len(entries), quiet=quiet)
        code = call.go(wait)
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submit:
    """One call."""

    asked: Asked
    desk: Desk
    wanted: Wanted
    num_entries: int
    quiet: int

    def go(self, wait: bool) -> int:
        """Submits, and with `wait` follows, merges and judges; the exit code."""
        from samdiag.fleet.slurm import submit

        self.desk.set_up()
        submitted = submit([self._job(shard.index) for shard in self.desk.shards()], self.desk, self.wanted)
        where = "this machine" if self.wanted.is_local else f"Slurm ({submitted[0].job_id} …)"
        self._say(f"samdiag: {self.num_entries} diagnoses in {len(submitted)} job(s) on {where}, {self.desk.folder}")
        if not wait:
            self._say("when they are through:")
            self._say(f"  {shlex.join(self._merge_words())}")
            return 0
        try:
            ended = self._follow(submitted)
        except KeyboardInterrupt:
            self._tell_of_interruption(submitted)
            raise
        for one in ended:
            self._complain_of(one)
        return self._conclude(ended)

    def _job(self, index: int) -> Any:
        from samdiag.fleet.slurm import ShardJob

        desk = self.desk
        words = [
            "inspect",
            *self.asked.without([*LIST, *AT_THE_END, "quiet"]),
            *(f"--files-from={desk.listing}", "--null", f"--shard={index}/{desk.count}"),
            *(f"--resume={desk.ledger(index)}", "--format=json", f"--output={desk.records(index)}"),
        ]
        threads = self.wanted.num_threads(desk.count)
        return ShardJob(arguments=tuple(words), folder=str(Path.cwd()), num_threads=threads)

    def _follow(self, submitted: Sequence[Submitted]) -> list[Ended]:
        from samdiag.fleet.desk import Tally
        from samdiag.fleet.slurm import follow

        tally = Tally([self.desk.records(one.shard.index) for one in submitted])
        ended = []
        with list_progress(self.num_entries, shown=sys.stderr.isatty() and not self.quiet) as progress:
            for one in follow(submitted):
                for _ in range(tally.update()):
                    progress.finish()
                if one is not None:
                    ended.append(one)
                progress.say_stage(f"{len(ended)} of {len(submitted)} jobs ended")
        return ended

    def _conclude(self, ended: Sequence[Ended]) -> int:
        """Merges and judges what there is; a job that died, or a checkpoint without a record, leaves a gap."""
        from samdiag.gates import worst

        written = [path for path in self._records() if path.exists()]
        if not written:
            return EXIT_USAGE if all(one.exit_code == EXIT_USAGE for one in ended) else EXIT_UNDECIDED
        merged = self.desk.merged
        _merge([*map(str, written), f"--output={merged}", "--fail-on=never"])
        code = _merge([str(merged), *self._conclusion()])
        missing = self._missing(merged)
        if missing:
            say(f"samdiag: {len(missing)} of {len(self.desk.paths)} checkpoints have no record: {listed(missing)}")
        return worst({code, EXIT_UNDECIDED}) if missing or any(one.death for one in ended) else code

    def _missing(self, merged: Path) -> list[str]:
        from samdiag.fleet.merging import merging
        from samdiag.fleet.saved_lines import same_name

        with merging([merged]) as found:
            there = {same_name(row.key.path) for row in found.rows}
        return [path for path in self.desk.paths if same_name(path) not in there]

    def _records(self) -> list[Path]:
        return [self.desk.records(shard.index) for shard in self.desk.shards()]

    def _merge_words(self) -> list[str]:
        """The command that merges the records, judges them and writes the report that was asked for."""
        return ["samdiag", "merge", *map(str, self._records()), *self._conclusion()]

    def _conclusion(self) -> list[str]:
        """What of `inspect` is for the end: gate and report."""
        format = () if "format" in self.asked.written else ("--format=text",)
        return [*self.asked.only(AT_THE_END), *format, *(["--quiet"] * self.quiet)]

    def _complain_of(self, one: Ended) -> None:
        from samdiag.fleet.slurm import SAME_AGAIN

        if one.death is None and one.exit_code != EXIT_USAGE:
            return
        how = one.death or f"ended with exit code {one.exit_code}"
        say(f"samdiag: job {one.of.job_id}, share {one.of.shard}: {how}; its log is {one.of.log}")
        say(f"  {SAME_AGAIN}")

    def _tell_of_interruption(self, submitted: Sequence[Submitted]) -> None:
        if self.wanted.is_local:
            return
        say("samdiag: the jobs go on; when they are through:")
        say(f"  {shlex.join(self._merge_words())}")
        say(f"or end them: scancel {submitted[0].job_id.partition('_')[0]}")

    def _say(self, line: str) -> None:
        if not self.quiet:
            say(line)


def _merge(words: Sequence[str]) -> int:
    """The exit code of `samdiag merge`, run here."""
    from samdiag.cli.merge import merge

    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(merge)
    code = typer.main.get_command(alone).main(list(words), prog_name="samdiag merge", standalone_mode=False)
    return int(code or 0)
