"""Free memory within a container's limits, and how it is shared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from samdiag.curvature.memory import affordable_vectors, free_memory, split_budget

CPU = torch.device("cpu")
GIB = 2**30


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", f"MemTotal: {99 * 2**20} kB\nMemAvailable:   {64 * 2**20} kB\n")
    return tmp_path


def test_without_groups_it_is_what_the_kernel_calls_available(machine: Path) -> None:
    assert free_memory(CPU, root=machine) == 64 * GIB


def test_the_tightest_of_nested_groups_counts_and_its_page_cache_does_not(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/outer/inner\n")
    write(machine, "sys/fs/cgroup/outer/memory.max", str(8 * GIB))
    write(machine, "sys/fs/cgroup/outer/memory.current", str(5 * GIB))
    write(machine, "sys/fs/cgroup/outer/memory.stat", f"anon 7\ninactive_file {GIB}\n")
    write(machine, "sys/fs/cgroup/outer/inner/memory.max", "max")
    write(machine, "sys/fs/cgroup/outer/inner/memory.current", str(5 * GIB))
    assert free_memory(CPU, root=machine) == 4 * GIB


def test_inside_a_container_the_mount_itself_may_hold_the_limit(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/docker/0123\n")
    write(machine, "sys/fs/cgroup/memory.max", str(2 * GIB))
    write(machine, "sys/fs/cgroup/memory.current", str(GIB))
    assert free_memory(CPU, root=machine) == GIB


def test_version_1_groups_are_read_too(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "5:devices:/\n4:memory:/job\n0::/\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", str(3 * GIB))
    write(machine, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", str(GIB))
    write(machine, "sys/fs/cgroup/memory/job/memory.stat", f"total_inactive_file {GIB // 2}\n")
    assert free_memory(CPU, root=machine) == 2 * GIB + GIB // 2


def test_a_full_group_leaves_nothing(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/\n")
    write(machine, "sys/fs/cgroup/memory.max", str(GIB))
    write(machine, "sys/fs/cgroup/memory.current", str(GIB + 1))
    assert free_memory(CPU, root=machine) == 0


@pytest.mark.parametrize(
    ("graphs", "basis", "expected"),
    [
        (10, 20, (10, 90)),  # both fit: the rest goes to the basis
        (70, 20, (70, 30)),
        (10, 200, (10, 90)),
        (200, 20, (80, 20)),  # what the basis leaves
        (200, 200, (50, 50)),
        (0, 0, (0, 100)),
    ],
)
def test_what_one_leaves_the_other_has(graphs: int, basis: int, expected: tuple[int, int]) -> None:
    found = split_budget(100, graphs=graphs, basis=basis)
    assert (found.graphs, found.basis) == expected


def test_a_budget_says_how_many_vectors_there_may_be() -> None:
    assert affordable_vectors(CPU, 1000, torch.float32, budget=100_000) == 25
    assert affordable_vectors(CPU, 1000, torch.float64, budget=100_000) == 12
    assert affordable_vectors(CPU, 1000, torch.float64, budget=0) == 8
    assert affordable_vectors(CPU, 10**6, torch.float32) >= 8
