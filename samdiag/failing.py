"""What a report says of a checkpoint that could not be diagnosed, and what the numbers were made with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from samdiag.errors import SamdiagError
from samdiag.types import CheckpointInfo, Diagnosis, Failure, Setting
from samdiag.user_errors import MEMORY_TODO, is_out_of_memory


def failed(
    error: Exception,
    *,
    checkpoint: CheckpointInfo | None,
    settings: Mapping[str, Setting] | None = None,
    warnings: tuple[str, ...] = (),
    timings: Mapping[str, float] | None = None,
    request: str = "",
) -> Diagnosis:
    """A diagnosis that says why there is none; an unexpected exception becomes an internal error with a request to
    report it.
    """
    from samdiag import __version__

    return Diagnosis(
        checkpoint=checkpoint,
        settings=settings or {},
        measurements=None,
        verdict="undecided",
        findings=(),
        prescription=None,
        warnings=warnings,
        failure=failure_of(error),
        timings=timings or {},
        samdiag_version=__version__,
        request=request,
    )


def failure_of(error: Exception) -> Failure:
    """What a report says of an exception: an expected one in its own two lines, another as an internal error."""
    if isinstance(error, SamdiagError):
        return Failure(what=error.what, todo=error.todo, exit_code=error.exit_code)
    if is_out_of_memory(error):
        return Failure(what="out of memory", todo=MEMORY_TODO, exit_code=3)
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else "?"
    text = " ".join(str(error).split())[:300]
    return Failure(
        what=f"internal error: {type(error).__name__} at {place}: {text}",
        todo="this is a bug in samdiag: please report it with this line and the command",
        exit_code=3,
    )


def environment(device: str) -> dict[str, str]:
    """What the numbers were made with."""
    import torch

    from samdiag.measure.opening import choose_device

    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(chosen),
        "device_name": name,
        "platform": platform.system(),
    }
