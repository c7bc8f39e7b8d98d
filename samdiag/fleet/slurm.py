"""A list in shares, each a job of Slurm, or of this machine: through submitit, which makes the scripts and the logs.

A job is `samdiag inspect … --shard i/n --resume …` in a process of its own, so that nothing is different from a run by
hand. What it has finished is in its ledger, so a job that was killed, or ran out of its time and was queued again,
goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.fleet.capacity import num_cpus
from samdiag.fleet.desk import Desk
from samdiag.fleet.serving import end_with_parent
from samdiag.fleet.shards import Shard
from samdiag.fleet.workers import how_it_ended
from samdiag.quoting import shown

CLUSTERS = ("auto", "slurm", "local")
PROGRAMS = ("sbatch", "srun")  # what submitit needs of Slurm
ANSWERED = frozenset({0, 1, 2, 3})  # exit codes of a run that went through its share
POLL_SECONDS = 1.0  # between two looks for finished jobs; Slurm itself is asked far less often, by submitit
SAME_AGAIN = "run the same command again: it goes on where the jobs stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What each job is given. None: the cluster's default, or submitit's.

    Attributes:
        cluster: of CLUSTERS; auto: Slurm where it is, else this machine.
        minutes: until a job is stopped, and queued again with what it has finished.
        gpus, cpus: of a job. memory: in GB.
        setup: shell commands before it.
    """

    cluster: str = "auto"
    minutes: int = 60
    partition: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    memory: float | None = None
    setup: Sequence[str] = ()

    @property
    def is_local(self) -> bool:
        """Whether the jobs run on this machine."""
        return self.cluster == "local" or (self.cluster == "auto" and shutil.which("srun") is None)

    def num_threads(self, count: int) -> int | None:
        """Threads of one of `count` jobs: the CPUs that it is given; here, its part of this machine's."""
        return self.cpus or (max(1, num_cpus() // count) if self.is_local else None)

    def parameters(self) -> Mapping[str, Any]:
        """For submitit's `update_parameters`."""
        said = {
            "name": "samdiag",
            "timeout_min": self.minutes,
            "slurm_partition": self.partition,
            "gpus_per_node": self.gpus,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory,
            "slurm_setup": list(self.setup) or None,
            "local_setup": list(self.setup) or None,
        }
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """One share's job; called on the node that it was given, and pickled until then.

    Attributes:
        arguments: of `samdiag`.
        folder: the working folder of the command.
        num_threads: OMP_NUM_THREADS of the process, where it is not set already; None: as it comes.
    """

    arguments: tuple[str, ...]
    folder: str
    num_threads: int | None = None

    def __call__(self) -> int:
        """Runs the command in a process of its own; its exit code, negative where a signal ended it."""
        if self.num_threads is not None:
            os.environ.setdefault("OMP_NUM_THREADS", str(self.num_threads))
        process = multiprocessing.get_context("spawn").Process(target=_run, args=(self.arguments, self.folder))
        process.start()
        try:
            process.join()
        finally:  # the time is over
            process.kill()
            process.join()
        return process.exitcode if process.exitcode is not None else 3

    def checkpoint(self) -> Any:
        """What submitit queues when the time is over: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _run(arguments: Sequence[str], folder: str) -> None:
    """`python -m samdiag …` in this process, which ends with its parent."""
    threading.Thread(target=end_with_parent, name="watch", daemon=True).start()
    os.chdir(folder)
    sys.argv = ["samdiag", *arguments]
    runpy.run_module("samdiag", run_name="__main__", alter_sys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job that was handed over.

    Attributes:
        shard: its share.
        job: submitit's.
    """

    shard: Shard
    job: Any

    @property
    def job_id(self) -> str:
        """As the cluster calls it; of a local job, its process."""
        return str(self.job.job_id)

    @property
    def log(self) -> Path:
        """What it wrote to stderr."""
        return Path(self.job.paths.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended: its exit code, or why it has none."""

    of: Submitted
    exit_code: int | None
    death: str | None = None


def submit(jobs: Sequence[ShardJob], desk: Desk, wanted: Wanted) -> tuple[Submitted, ...]:
    """Hands the jobs, one per share, over; on Slurm as one array.

    Raises:
        UsageError: submitit or Slurm is not there, or does not take a setting.
        CannotDecide: Slurm refuses them.
    """
    try:
        import submitit
    except ImportError as error:
        what = "submit needs submitit, which is not installed"
        raise UsageError(what, "pip install 'samdiag[slurm]'") from error
    if wanted.cluster == "slurm" and (missing := [name for name in PROGRAMS if shutil.which(name) is None]):
        what = f"there is no Slurm here: {missing[0]} is not on PATH"
        raise UsageError(what, "run it on a login node, or take --cluster local")
    try:
        executor = submitit.AutoExecutor(folder=desk.folder / "jobs", cluster="local" if wanted.is_local else "slurm")
        executor.update_parameters(**wanted.parameters())
        with executor.batch():
            handed = [executor.submit(job) for job in jobs]
    except (RuntimeError, OSError) as error:
        last = (str(error).strip() or type(error).__name__).splitlines()[-1]
        what = f"the jobs could not be submitted: {shown(last)}"
        raise CannotDecide(what, "see what the cluster asks for: --partition, --timeout-min, --mem, --gpus") from error
    return tuple(Submitted(shard=shard, job=job) for shard, job in zip(desk.shards(), handed, strict=True))


def follow(submitted: Sequence[Submitted]) -> Iterator[Ended | None]:
    """Each job as it ends; None between two looks for one."""
    waiting = list(submitted)
    while waiting:
        for one in [one for one in waiting if one.job.done()]:
            waiting.remove(one)
            yield _ended(one)
        if waiting:
            yield None
            time.sleep(POLL_SECONDS)


def _ended(one: Submitted) -> Ended:
    from submitit.core.utils import UncompletedJobError

    try:
        code = one.job.result()
    except UncompletedJobError:  # no result, or an exception in place of one: the log says more
        state = str(getattr(one.job, "state", "")) or "unknown"
        return Ended(of=one, exit_code=None, death=f"left no result (state {shown(state)})")
    return Ended(of=one, exit_code=code, death=None if code in ANSWERED else how_it_ended(code))
