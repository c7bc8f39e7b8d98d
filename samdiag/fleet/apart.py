"""A Session in a process of its own: whatever kills that process costs one checkpoint, and not the watch.

Large files are read through memory maps. Where one is cut short while it is mapped, as by a training script that
writes over its `last.pt`, the system ends the process that reads it (SIGBUS): that cannot be caught, only survived.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from multiprocessing import connection as pipes
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from samdiag.errors import CannotDecide, SamdiagError
from samdiag.fleet.entries import Asked, Entry
from samdiag.fleet.serving import could_not, end_with_parent
from samdiag.fleet.workers import how_it_ended
from samdiag.preparing import Identity
from samdiag.types import Diagnosis

Progress = Callable[[str, int], None]
UNHEARD = (signal.SIGINT, signal.SIGTERM)  # a terminal and a cluster send them to every process
DIED_TODO = "SIGBUS: the file changed while it was read; SIGKILL: memory ran out; else inspect it alone to see more"
BEGIN_TODO = "see what it wrote above; memory may have run out"


class Message(Enum):
    """What goes through the pipe, each with its content: the first two are asked, the others said."""

    IDENTIFY = "identify"  # an Entry
    INSPECT = "inspect"  # an Entry
    READY = "ready"  # None: what follows may be a checkpoint's fault
    STAGE = "stage"  # what is being done, and the number of products so far
    DONE = "done"  # an Identity or a Diagnosis
    CANNOT = "cannot"  # the two lines of a SamdiagError


class Apart:
    """What `Session` is, for one caller and one checkpoint at a time; use as a context.

    The process begins to load what it needs when the context is entered. It hears neither Ctrl-C nor SIGTERM, which
    are the caller's affair, and ends with the caller however that ends.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._ready = False

    def __enter__(self) -> Apart:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def identify(self, entry: Entry) -> Identity:
        """What the diagnosis of `entry` would be known by.

        Raises:
            SamdiagError: the checkpoint cannot be opened, or its settings cannot be resolved, or that killed the
                process.
        """
        kind, content = self._ask(Message.IDENTIFY, entry, None)
        if kind is Message.CANNOT:
            raise CannotDecide(*content)
        assert isinstance(content, Identity)
        return content

    def inspect(self, entry: Entry, *, progress: Progress | None = None) -> Diagnosis:
        """The diagnosis of one entry; that the process died of it is a failure like others.

        Raises:
            KeyboardInterrupt: passed on.
        """
        kind, content = self._ask(Message.INSPECT, entry, progress)
        if kind is Message.CANNOT:
            return could_not(entry, CannotDecide(*content))
        assert isinstance(content, Diagnosis)
        return content

    def _start(self) -> None:
        self._ready = False
        context = multiprocessing.get_context("spawn")  # never fork: torch's threads do not survive it
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.asked), name="samdiag-watch")
        with _signals_blocked():
            self._process.start()  # not daemonic: those may not have the processes of a DataLoader
        theirs.close()

    def _ask(self, what: Message, entry: Entry, progress: Progress | None) -> tuple[Message, Any]:
        """The answer of the process; of a new one where the last one is dead.

        Raises:
            CannotDecide: it died before it could begin: no checkpoint's fault, and the next one would die as well.
        """
        if self._process is None or not self._process.is_alive():
            self.__exit__()
            self._start()
        assert self._pipe is not None
        assert self._process is not None
        with contextlib.suppress(OSError):  # it died just now: what is heard next says so
            self._pipe.send((what, entry))
        while (heard := self._hear()) is not None:
            kind, content = heard
            if kind is Message.READY:
                self._ready = True
            elif kind is not Message.STAGE:
                return kind, content
            elif progress is not None:
                progress(*content)
        self._process.join()
        how = how_it_ended(self._process.exitcode)
        if not self._ready:
            raise CannotDecide(f"the process that makes the diagnoses {how} before it could begin", BEGIN_TODO)
        return Message.CANNOT, (f"{entry.path}: the process that had this checkpoint in hand {how}", DIED_TODO)

    def _hear(self) -> tuple[Message, Any] | None:
        """What the process says next; None where it is dead and said nothing more."""
        assert self._pipe is not None
        assert self._process is not None
        pipes.wait([self._pipe, self._process.sentinel])
        try:
            return self._pipe.recv() if self._pipe.poll() else None
        except (EOFError, OSError):
            return None


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Inside, signals wait; a process started here begins with them blocked, until it has said that it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, UNHEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, asked: Asked) -> None:
    """Answers what comes through `pipe` until it is closed; the main function of the process."""
    for number in UNHEARD:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, UNHEARD)
    threading.Thread(target=end_with_parent, name="end-with-parent", daemon=True).start()
    sys.stdout = sys.stderr  # stdout is the parent's report
    with contextlib.suppress(OSError, ValueError):
        os.dup2(2, 1)
    importlib.import_module("samdiag.measure.measuring")  # with torch: some seconds, while nothing is waited for yet
    from samdiag.fleet.session import Session

    with Session(asked) as session, contextlib.suppress(EOFError, OSError):  # the parent has closed its end
        pipe.send((Message.READY, None))
        while True:
            what, entry = pipe.recv()
            if what is Message.IDENTIFY:
                answer = _identified(session.identify, entry)
            else:
                answer = _inspected(session.inspect, entry, lambda *stage: pipe.send((Message.STAGE, stage)))
            pipe.send(answer)


def _identified(identify: Callable[[Entry], Identity], entry: Entry) -> tuple[Message, Any]:
    try:
        return Message.DONE, identify(entry)
    except SamdiagError as error:
        return Message.CANNOT, (error.what, error.todo)


def _inspected(inspect: Callable[..., Diagnosis], entry: Entry, progress: Progress) -> tuple[Message, Any]:
    try:
        return Message.DONE, inspect(entry, progress=progress)
    except (EOFError, OSError):
        raise
    except BaseException as error:  # sys.exit in a user's model must not end the process
        return Message.DONE, could_not(entry, error)
