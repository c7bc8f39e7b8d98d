"""Reading the clock when the device has done its work."""

from __future__ import annotations

import time

import torch


def now(device: torch.device) -> float:
    """Seconds; waits for a GPU to finish, so that a difference of two is the time of what lies between."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
