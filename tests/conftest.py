"""Settings that every test shares."""

from __future__ import annotations

import os
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker() -> None:
    """Parallel test workers share the cores: one torch thread each is faster than two that fight."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


COUNTED = {"attacks": "hostile: {} attacks, all failed closed", "inputs": "fuzz: {} inputs, none escaped"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many attacks and fuzzed inputs there were, from what the tests recorded; also with several workers."""
    passed = terminalreporter.stats.get("passed", [])
    for name, text in COUNTED.items():
        found = [value for report in passed for key, value in report.user_properties if key == name]
        failed = [report for report in terminalreporter.stats.get("failed", []) if _counts(report.nodeid, name)]
        if found and not failed:
            terminalreporter.write_line(text.format(sum(found)))
        elif failed:
            terminalreporter.write_line(f"{name}: {len(failed)} test(s) did NOT fail closed", red=True)


def _counts(nodeid: str, name: str) -> bool:
    return nodeid.startswith({"attacks": "tests/hostile/", "inputs": "tests/fuzz/"}[name])
