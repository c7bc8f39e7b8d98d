"""Settings that every test shares."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker() -> None:
    """Parallel test workers share the cores: one torch thread each is faster than two that fight."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)
