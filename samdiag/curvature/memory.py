"""How much memory there is to use, and how kept graphs and the Krylov basis share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

UNKNOWN_SHARE = 4 * 2**30  # bytes: where the system does not say, a laptop's safe share
DEFAULT_SHARE = 0.75  # of what is free: the rest is for one batch's activations, copies and other processes
FEWEST_VECTORS = 8  # below it neither end of a spectrum can be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bytes for kept gradient graphs and for the vectors of a Krylov basis."""

    graphs: int
    basis: int


def free_memory(device: torch.device, *, root: Path = Path("/")) -> int:
    """Bytes that are free on the device; on the CPU what the kernel calls available, within the container's limits.

    Args:
        device: a GPU's memory includes what torch has reserved and does not use.
        root: where /proc and /sys are.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return max(0, min([_available(root), *_left_in_groups(root)]))


def default_budget(device: torch.device) -> int:
    """Bytes for graphs and basis together where nobody said how many."""
    return int(DEFAULT_SHARE * free_memory(device))


def split_budget(total: int, *, graphs: int, basis: int) -> Budget:
    """`total` bytes shared by two that need `graphs` and `basis` bytes: half each, and what one leaves the other has.

    Where both get what they need, the rest goes to the basis, whose final size is not known beforehand.
    """
    half = total // 2
    if graphs <= half or graphs + basis <= total:
        return Budget(graphs=graphs, basis=total - graphs)
    share = min(basis, half)
    return Budget(graphs=total - share, basis=share)


def affordable_vectors(device: torch.device, dim: int, dtype: torch.dtype, *, budget: int | None = None) -> int:
    """How many vectors [dim] a Krylov basis may hold, at least FEWEST_VECTORS.

    Args:
        device: where the basis lives.
        dim: entries of a vector.
        dtype: their type.
        budget: bytes that the basis may have, copies included; None: a quarter of the free memory, since growing it
            copies it once.
    """
    bytes_ = free_memory(device) // 4 if budget is None else budget
    return max(FEWEST_VECTORS, bytes_ // (dim * dtype.itemsize))


def _available(root: Path) -> int:
    try:
        with open(root / "proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # no such file outside Linux
        return UNKNOWN_SHARE


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left in every control group that this process is in and that has a limit; page cache counts as left.

    Source: the kernel's documentation of cgroup v1 (memory.limit_in_bytes) and v2 (memory.max).
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left_above(mount, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left_above(mount / "memory", path, *names)


def _left_above(mount: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """Bytes left in the group at `path` and in all above it: inside a container only the mount itself may be there."""
    group = mount / path.lstrip("/")
    for directory in (group, *group.parents):
        if directory.is_relative_to(mount):
            allowed, used = _number(directory / limit), _number(directory / usage)
            if allowed is not None and used is not None:
                yield allowed - used + _statistic(directory / "memory.stat", cache)


def _number(file: Path) -> int | None:
    """The file's only number; None where there is no such file, or no limit ("max")."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _statistic(file: Path, name: str) -> int:
    try:
        rows = (line.split() for line in file.read_text(encoding="ascii").splitlines())
        return next((int(row[1]) for row in rows if row[0] == name), 0)
    except (OSError, ValueError, IndexError):
        return 0
