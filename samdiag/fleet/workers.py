"""Several processes for one list: results in its order, and a process that dies costs one entry.

Own code on top of `multiprocessing`, because the pools that exist do not fit: when one process dies,
`ProcessPoolExecutor` and loky declare the whole pool broken and every entry in flight lost; pebble loses one entry, but
as the others do it starts all its processes alike, so that none can have a GPU of its own. What is needed is one pipe
per process, and one entry in it at a time.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection as pipes
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from samdiag.errors import CannotDecide
from samdiag.fleet.capacity import Share, shares
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.serving import Message, could_not, serve
from samdiag.types import Diagnosis

LOOK_AHEAD = 4  # entries per worker ahead of the one awaited: hides uneven ones; a kill -9 loses no more than these
DEATHS = 5  # per worker, in a row, without one diagnosis in between: then the fault is hardly the checkpoints'
CHECK_SECONDS = 1.0  # a dead process is normally seen at once; only one whose children keep its pipes open is not
END_SECONDS = 5.0  # for a worker that has nothing more to do
WHEN = {"SIGKILL": "memory runs out", "SIGBUS": "a file is cut short while it is read"}
DIED_TODO = "try it without --workers; where memory ran out: fewer --workers, fewer --samples, or more memory"

Stage = Callable[[Entry, str, int], None]


def diagnose_in_order(
    entries: Iterable[Entry],
    asked: Asked,
    *,
    num_workers: int,
    stop: Callable[[], bool] = lambda: False,
    progress: Stage | None = None,
    announce: Callable[[str], None] | None = None,
) -> Iterator[Diagnosis]:
    """The diagnoses of the entries, in their order, made by `num_workers` spawned processes.

    Each process has a `Session` and its share of the machine (`capacity.shares`). While the caller deals with one
    result the next ones are made; no more than `LOOK_AHEAD` entries per worker are taken from `entries` ahead of it, so
    memory does not grow with the list. A record is that of a run without workers, but for its timings and the number
    of CPU threads in its environment. Where that number differs, the last bits of sums may: on the digits network one
    thread against two changed eigenvalues, losses and gradients by at most 3e-7 of their value, far inside their
    error bars. The same OMP_NUM_THREADS gives the same bits, with and without workers.

    A process that dies (killed, out of memory, a crash in a library) makes a failure, exit 3, of the entry that it had
    in hand, and is replaced. The workers do not see Ctrl-C: a KeyboardInterrupt in the caller, or closing the iterator,
    ends them at once. They end with the caller however that ends.

    Args:
        entries: what is to be made; taken as it is needed.
        asked: what is asked about each.
        num_workers: processes, at least 1; no more are started than there are entries.
        stop: asked before an entry is handed out; True: no new ones, those in hand are finished and returned.
        progress: told what is being done to which entry, and the number of products so far.
        announce: told lines for the user.

    Raises:
        CannotDecide: processes died again and again without one diagnosis in between, and entries are left. What was
            finished has been returned.
        UsageError: the settings that say the device cannot be read.
    """
    pool = _Pool(asked, shares(num_workers, asked), progress, announce)
    atexit.register(pool.kill)  # before multiprocessing waits for them
    try:
        yield from pool.run(iter(entries), stop)
        pool.dismiss()
    finally:
        pool.kill()
        atexit.unregister(pool.kill)


@dataclass(slots=True, kw_only=True)
class _Worker:
    """One process, its pipe, and what it has in hand."""

    process: SpawnProcess
    pipe: Connection
    begun: bool = False
    held: tuple[int, Entry] | None = None


class _Pool:
    """The workers, which of them has what, and what is finished and waits for its turn."""

    def __init__(
        self,
        asked: Asked,
        parts: tuple[Share, ...],
        progress: Stage | None,
        announce: Callable[[str], None] | None,
    ) -> None:
        self._asked, self._parts = asked, parts
        self._progress, self._announce = progress, announce
        self._workers: list[_Worker | None] = [None] * len(parts)
        self._finished: dict[int, Diagnosis] = {}
        self._returned: deque[tuple[int, Entry]] = deque()  # from processes that died before they could begin
        self._num_taken = 0
        self._next = 0  # index of the result that is yielded next
        self._deaths = 0  # in a row
        self._last_death = ""

    def run(self, entries: Iterator[Entry], stop: Callable[[], bool]) -> Iterator[Diagnosis]:
        """The diagnoses in order."""
        exhausted = False
        while True:
            stopped = stop()
            if not stopped and not self._given_up:
                exhausted = self._hand_out(entries, exhausted)
            if self._next in self._finished:
                self._next += 1
                yield self._finished.pop(self._next - 1)
            elif any(worker and worker.held for worker in self._workers):
                self._listen()
            elif stopped or self._given_up or (exhausted and not self._returned):
                break
        for index in sorted(self._finished):  # behind one that no process could begin with
            yield self._finished.pop(index)
        if self._given_up and not stopped and (self._returned or next(entries, None) is not None):
            raise CannotDecide(
                f"the worker processes died {self._deaths} times in a row, the last one {self._last_death}",
                "see what they wrote above; try one checkpoint without --workers",
            )

    @property
    def _given_up(self) -> bool:
        return self._deaths >= DEATHS * len(self._parts)

    def _hand_out(self, entries: Iterator[Entry], exhausted: bool) -> bool:
        """Gives every free worker an entry, as far as there are any and they may run ahead; whether they ran out."""
        for slot in range(len(self._parts)):
            worker = self._workers[slot]
            if worker is not None and worker.held:
                continue
            if self._returned:
                item = self._returned.popleft()
            elif exhausted or self._num_taken - self._next >= LOOK_AHEAD * len(self._parts):
                continue
            else:
                entry = next(entries, None)
                if entry is None:
                    exhausted = True
                    continue
                item, self._num_taken = (self._num_taken, entry), self._num_taken + 1
            self._give(slot, item)
        return exhausted

    def _give(self, slot: int, item: tuple[int, Entry]) -> None:
        worker = self._workers[slot] or self._start(slot)
        worker.held, worker.begun = item, False
        with suppress(OSError):  # it died idle: the entry comes back when that is noticed
            worker.pipe.send(item[1])

    def _start(self, slot: int) -> _Worker:
        context = multiprocessing.get_context("spawn")  # never fork: torch's threads do not survive it
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._asked, self._parts[slot]), name=f"samdiag-{slot}")
        with _ctrl_c_blocked():
            process.start()  # not daemonic: those may not have the processes of a DataLoader
        theirs.close()
        worker = self._workers[slot] = _Worker(process=process, pipe=ours)
        return worker

    def _listen(self) -> None:
        """Waits until a worker says something or dies, and takes note of it."""
        workers = [worker for worker in self._workers if worker is not None]
        pipes.wait([*(w.pipe for w in workers), *(w.process.sentinel for w in workers)], timeout=CHECK_SECONDS)
        for slot, worker in enumerate(self._workers):
            if worker is None:
                continue
            alive = worker.process.is_alive()  # asked first: what it said before its death is still heard
            try:
                while worker.pipe.poll():
                    self._hear(worker, *worker.pipe.recv())
            except (EOFError, OSError):
                alive = False
            except Exception as error:  # what it sent cannot be read here
                assert worker.held is not None
                self._conclude(worker, self._failure(worker.held[1], error))
            if not alive:
                self._bury(slot, worker)

    def _hear(self, worker: _Worker, message: Message, content: Any) -> None:
        match message:
            case Message.BEGUN:
                worker.begun = True
            case Message.STAGE if self._progress and worker.held:
                self._progress(worker.held[1], *content)
            case Message.SAID if self._announce:
                self._announce(content)
            case Message.DONE:
                self._conclude(worker, content)

    def _conclude(self, worker: _Worker, diagnosis: Diagnosis) -> None:
        assert worker.held is not None
        self._finished[worker.held[0]] = diagnosis
        worker.held, self._deaths = None, 0

    def _bury(self, slot: int, worker: _Worker) -> None:
        """A dead worker's entry becomes a failure; one that it could not even begin with is given to the next."""
        _end(worker)
        self._workers[slot] = None
        self._deaths += 1
        self._last_death = how_it_ended(worker.process.exitcode)
        if worker.held is None:
            return
        index, entry = worker.held
        if worker.begun:
            what = f"the worker process that had this checkpoint in hand {self._last_death}"
            self._finished[index] = self._failure(entry, CannotDecide(what, DIED_TODO))
        else:
            self._returned.append(worker.held)

    def _failure(self, entry: Entry, error: Exception) -> Diagnosis:
        from samdiag.fleet.session import Session

        with Session(self._asked) as session:
            return could_not(entry, error, session=session)

    def dismiss(self) -> None:
        """Lets the workers, idle by now, end by themselves."""
        for worker in filter(None, self._workers):
            worker.pipe.close()
        for worker in filter(None, self._workers):
            worker.process.join(END_SECONDS)

    def kill(self) -> None:
        """Ends all of them at once."""
        for slot, worker in enumerate(self._workers):
            if worker is not None:
                _end(worker)
                self._workers[slot] = None


def how_it_ended(exit_code: int | None) -> str:
    """ "was killed by SIGKILL, …" or "ended with exit code 3"."""
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"was killed by {name}" + (f", as the system does when {WHEN[name]}" if name in WHEN else "")


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Inside, a Ctrl-C waits; a process started here begins with it blocked, until it has said that it ignores it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
