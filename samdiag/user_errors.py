"""What an exception of the user's own code says in one line, and how it becomes one of ours."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.quoting import shown

OWN_PACKAGE = Path(__file__).parent
EXHAUSTED = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
MEMORY_TODO = "use --device cpu, fewer --samples, smaller batches, or a machine with more memory"


@contextmanager
def user_code(what: str, todo: str) -> Iterator[None]:
    """Turns whatever the user's own code raises, `sys.exit` included, into a UsageError that names the line.

    Our own errors and Ctrl-C pass; memory that runs out is not the code's mistake and becomes CannotDecide.

    Args:
        what: the subject of the message, e.g. "the loss".
        todo: what to do about it.
    """
    try:
        yield
    except SamdiagError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise CannotDecide(f"out of memory in {what}", MEMORY_TODO) from error
        raise UsageError(f"{what} raised {summary(error)}", todo) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: Python's own, torch's class, or its CPU allocator's message."""
    name = type(error).__name__  # by name: torch need not be loaded to tell
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or any(text in str(error) for text in EXHAUSTED)


def summary(error: BaseException) -> str:
    """One line: the exception's type and message, and the deepest line of the user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_user_file(frame.filename)]
    if isinstance(error, SyntaxError) and error.filename:
        where = f" at {shown(_relative(error.filename))}:{error.lineno}"
    else:
        where = f" at {shown(_relative(own[-1].filename))}:{own[-1].lineno}" if own else ""
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {shown(message)}{where}" if message else f"{type(error).__name__}{where}"


def _is_user_file(filename: str) -> bool:
    path = Path(filename)
    library = {"site-packages", "dist-packages"} & set(path.parts) or filename.startswith("<")
    standard = path.is_relative_to(Path(os.__file__).parent)
    return not library and not standard and not path.is_relative_to(OWN_PACKAGE)


def _relative(filename: str) -> str:
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative
