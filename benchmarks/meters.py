"""Time, products and memory of a measurement, and what it ran on."""

from __future__ import annotations

import ctypes
import datetime
import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
MIB = 2**20  # bytes
TOOLS = ("torch", "numpy", "scipy", "pyhessian", "hessian-eigenthings", "curvlinops-for-pytorch", "samdiag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Wall clock and processor time of one call; the latter sums over threads and leaves out other processes."""

    wall: float
    cpu: float


class Meter:
    """Counts and times the products that a tool takes; a product inside a product is not counted twice.

    Attributes:
        count: calls so far.
        wall, cpu: seconds spent in them.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.count, self.wall, self.cpu = 0, 0.0, 0.0
        self._inside = False

    def wrap(self, product: Callable[..., T]) -> Callable[..., T]:
        """`product`, counted and timed."""

        def counted(*args: Any, **kwargs: Any) -> T:
            if self._inside:
                return product(*args, **kwargs)
            self._inside = True
            try:
                result, seconds = timed(lambda: product(*args, **kwargs), self.device)
            finally:
                self._inside = False
            self.count += 1
            self.wall += seconds.wall
            self.cpu += seconds.cpu
            return result

        return counted


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, Seconds]:
    """What `work` returns, and how long it took until the device had finished."""
    settle(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    settle(device)
    return result, Seconds(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def settle(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best(work: Callable[[], Any], device: torch.device, times: int) -> Seconds:
    """The smallest of `times` timings, after one call that is not counted."""
    work()
    runs = [timed(work, device)[1] for _ in range(times)]
    return Seconds(wall=min(r.wall for r in runs), cpu=min(r.cpu for r in runs))


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """How far memory rose above its level before `work` while it ran: the allocator's on a GPU, resident memory else.

    For resident memory the process should be fresh: what an earlier call freed but kept would hide a rise.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    give_back_freed()
    before, reset = resident("VmRSS"), _reset_peak()
    work()
    return max((resident("VmHWM") if reset else _lifetime_peak()) - before, 0)


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process in bytes; Linux only, 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5: sets VmHWM to the present VmRSS
    except OSError:
        return False
    return True


def _lifetime_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, KiB on Linux


def give_back_freed() -> None:
    """Returns freed memory to the system, where the C library can."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on: processor, threads, versions, date. No names of hosts or users."""
    versions = {}
    for name in TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
