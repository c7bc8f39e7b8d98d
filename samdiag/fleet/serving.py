"""A worker's own side: entries come in through a pipe, diagnoses go out through it, until the other end is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from samdiag.errors import CannotDecide
from samdiag.failing import failed
from samdiag.fleet.capacity import Share
from samdiag.fleet.entries import Asked, Entry
from samdiag.types import CheckpointInfo, Diagnosis

if TYPE_CHECKING:
    from samdiag.fleet.session import Session

STAGE_SECONDS = 0.2  # between two messages about what is being done: nobody reads faster


class Message(Enum):
    """What a worker says; the second item of the pair is what goes with it."""

    BEGUN = "begun"  # None: it has the entry, and from here on the entry may be what it dies of
    STAGE = "stage"  # (what is being done, number of products so far)
    SAID = "said"  # one line for the user
    DONE = "done"  # the Diagnosis


def serve(connection: Connection, asked: Asked, share: Share) -> None:
    """Diagnoses what comes through `connection` until it is closed; the main function of a worker process.

    Ctrl-C is the parent's affair; when the parent is gone, however it went, the process ends at once.
    """
    _leave_ctrl_c_to_the_parent()
    threading.Thread(target=end_with_parent, name="watch", daemon=True).start()
    _print_to_stderr()
    os.environ["OMP_NUM_THREADS"] = str(share.num_threads)  # torch is not loaded yet
    if share.visible_gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.visible_gpu
    import torch

    from samdiag.fleet.session import Session

    torch.set_num_threads(share.num_threads)
    with Session(asked) as session, contextlib.suppress(EOFError, OSError):  # the parent has closed its end
        while True:
            entry = connection.recv()
            connection.send((Message.BEGUN, None))
            _hand_over(connection, session, entry, _diagnose(session, entry, connection))


def _diagnose(session: Session, entry: Entry, connection: Connection) -> Diagnosis:
    """The diagnosis of one entry, whatever its problem's code raises."""
    from samdiag.patience import Patience

    def announce(text: str) -> None:
        connection.send((Message.SAID, text))

    try:
        return session.inspect(entry, progress=_stages(connection), patience=Patience(), announce=announce)
    except BaseException as error:  # sys.exit in a user's model must not end the worker
        return could_not(entry, error, session=session)


def could_not(entry: Entry, error: BaseException, *, session: Session | None = None) -> Diagnosis:
    """The record of an entry that could not be diagnosed; with a session, also what it is known by."""
    if not isinstance(error, Exception):
        error = CannotDecide(f"the problem's own code raised {type(error).__name__}", "take it out of that code")
    fingerprint, request = None, ""
    if session is not None:
        with contextlib.suppress(Exception):  # else nothing but its path is known
            identity = session.identify(entry)
            fingerprint, request = identity.fingerprint, identity.request
    info = CheckpointInfo(path=entry.path, step=entry.step, fingerprint=fingerprint)
    return failed(error, checkpoint=info, request=request)


def _hand_over(connection: Connection, session: Session, entry: Entry, diagnosis: Diagnosis) -> None:
    """Sends the diagnosis, or why it cannot be sent."""
    try:
        connection.send((Message.DONE, diagnosis))
    except (EOFError, OSError):
        raise
    except Exception as error:  # something in it cannot be pickled; nothing of it was sent
        connection.send((Message.DONE, could_not(entry, error, session=session)))


def _stages(connection: Connection) -> Callable[[str, int], None]:
    """Tells the parent what is being done, not more often than it can be read."""
    last = 0.0

    def tell(what: str, count: int) -> None:
        nonlocal last
        if time.monotonic() - last >= STAGE_SECONDS:
            last = time.monotonic()
            connection.send((Message.STAGE, (what, count)))

    return tell


def _leave_ctrl_c_to_the_parent() -> None:
    """From here on a Ctrl-C, which a terminal sends to all its processes, does nothing here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # the parent blocked it for the time until here
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent() -> None:
    """Waits for the end of the parent, and ends this process in the middle of whatever it does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()  # its end of a pipe closes, also when it is killed
    os._exit(1)


def _print_to_stderr() -> None:
    """Stdout is the parent's report: what user code prints, from Python or from C, goes to stderr."""
    sys.stdout = sys.stderr
    with contextlib.suppress(OSError, ValueError):
        os.dup2(2, 1)
