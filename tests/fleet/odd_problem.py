"""A problem whose code does what the weights say: the tests' stand-in for crashes, prints and endless losses."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import samdiag

BAD = {"raises": 1.0, "exits": 2.0, "interrupts": 3.0, "killed": 4.0, "hangs": 5.0, "ends": 6.0}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, 0.25], dtype=torch.float64))
        self.mode = nn.Parameter(torch.zeros(1, dtype=torch.float64), requires_grad=False)


def loss(model: nn.Module, batch: Any) -> Any:
    mode = float(model.mode)
    if mode == BAD["raises"]:
        raise ValueError("no loss today")
    if mode == BAD["exits"]:
        sys.exit(0)
    if mode == BAD["interrupts"]:
        raise KeyboardInterrupt
    if mode == BAD["killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == BAD["ends"]:
        os._exit(7)
    if mode == BAD["hangs"]:
        Path(f"hangs-{os.getpid()}").touch()
        time.sleep(60)
    x, y = model.w
    return batch[0].mean() * (1 + 2 * x**2 + 3 * y**2 + x**4)


def problem() -> samdiag.Problem:
    print("a line of the problem's own")
    os.system("echo a line of a program that it starts")
    return samdiag.Problem(model=Two(), loss=loss, batches=[(torch.ones(4, dtype=torch.float64),)], population=4)
