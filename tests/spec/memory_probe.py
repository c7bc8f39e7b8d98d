"""Loads a large checkpoint into a model in a process of its own, and prints the most memory that it needed.

`python -m tests.spec.memory_probe CKPT NUM WIDTH`: NUM linear layers of WIDTH² float32 weights. It is anonymous memory
that counts (RssAnon): pages of a mapped file can be dropped at any time.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import torch
from torch import nn


class Peak:
    """The most anonymous memory in bytes while it is entered, looked at every millisecond."""

    def __init__(self) -> None:
        self.most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.001):
            self.most = max(self.most, anonymous())


def anonymous() -> int:
    """Anonymous resident memory of this process in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.partition("RssAnon:")[2].split()[0])


def network(num: int, width: int) -> nn.Module:
    """Without initialisation: what counts is the memory."""
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(num)))
    return model.to_empty(device="cpu")


def main() -> None:
    """Prints {"weights": bytes, "peak": bytes above what the interpreter needed}."""
    from samdiag.formats import open_checkpoint
    from samdiag.spec.loading import load_weights

    path, num, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.zeros(1)
    before = anonymous()
    with Peak() as peak:
        checkpoint = open_checkpoint(path)
        model = network(num, width)
        load_weights(model, checkpoint.weights(), path)
    assert checkpoint.velocity() is None or len(checkpoint.velocity().tensors) == num
    assert all(float(p.detach()[0, 0]) == float(index) for index, p in enumerate(model.parameters()))
    print(json.dumps({"weights": 4 * num * width * width, "peak": peak.most - before, "after": anonymous() - before}))


if __name__ == "__main__":
    main()
