"""How much memory there is to use."""

from __future__ import annotations

import torch

UNKNOWN_SHARE = 4 * 2**30  # bytes: where the system does not say, a laptop's safe share


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; on the CPU what the kernel calls available."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # no such file outside Linux
        return UNKNOWN_SHARE


def affordable_vectors(device: torch.device, dim: int, dtype: torch.dtype) -> int:
    """How many vectors [dim] a Krylov basis may hold: a quarter of the free memory, since growing it copies it once.

    At least 8, below which neither end can be told.
    """
    return max(8, free_memory(device) // 4 // (dim * dtype.itemsize))
