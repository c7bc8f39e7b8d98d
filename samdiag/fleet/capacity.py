"""How many processes this machine takes, and what each of them may use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from samdiag.errors import UsageError
from samdiag.fleet.entries import Asked

AUTO = "auto"
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "quota period" in microseconds, or "max period"
WORKERS_TODO = "give a number of processes, or auto: --workers 4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one worker may use.

    Attributes:
        num_threads: CPU threads of its products.
        visible_gpu: the one GPU that it sees, as CUDA_VISIBLE_DEVICES names it; None: whatever its parent sees.
    """

    num_threads: int
    visible_gpu: str | None = None


def parse_workers(text: str, asked: Asked) -> int:
    """The number of worker processes that `--workers N|auto` asks for; auto: one per GPU, else half the CPUs.

    Half of them, because each process also reads, checks and waits, and because two threads a process are
    faster than one; at least one.

    Raises:
        UsageError: neither a positive number nor auto; or the settings are not readable.
    """
    if text.strip().lower() == AUTO:
        return len(_gpus(asked)) or max(1, num_cpus() // 2)
    if not (text.strip().isascii() and text.strip().isdecimal() and 1 <= int(text) <= 1024):  # more is a slip
        raise UsageError(f"--workers {text!r} is neither a number from 1 to 1024 nor auto", WORKERS_TODO)
    return int(text)


def shares(num_workers: int, asked: Asked) -> tuple[Share, ...]:
    """What each of the workers may use: the GPUs in turn, and equal parts of the CPUs.

    Where there are several GPUs and the device is auto or "cuda", every worker sees only one of them and calls it
    cuda:0, so that its records are those of a run without workers. OMP_NUM_THREADS, where it is set, holds for each
    process, as it does everywhere.
    """
    gpus = _gpus(asked)
    said = os.environ.get("OMP_NUM_THREADS", "")
    num_threads = int(said) if said.isdecimal() and int(said) > 0 else max(1, num_cpus() // num_workers)
    return tuple(
        Share(num_threads=num_threads, visible_gpu=gpus[index % len(gpus)] if len(gpus) > 1 else None)
        for index in range(num_workers)
    )


def num_cpus() -> int:
    """CPUs that this process may use: those it is bound to, and no more than its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return max(1, min(bound, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or no limit
        return bound


def _gpus(asked: Asked) -> list[str]:
    """The GPUs that may be dealt out, as CUDA_VISIBLE_DEVICES names them; none where the settings name a device."""
    from samdiag.spec.discover import look_up

    found, _ = look_up(
        overrides=asked.overrides, sources=asked.sources, config=asked.config, checkpoint=None, cwd=asked.cwd
    )  # without a checkpoint: none may say a device
    said = found.settings.get("measure.device")
    if said is not None and said.value not in (AUTO, "cuda"):
        return []
    import torch

    count = torch.cuda.device_count()
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (visible or [str(index) for index in range(count)])[:count]
