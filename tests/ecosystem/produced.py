"""One row of the table of formats: how a real library writes a checkpoint, and what samdiag must find in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a producer wrote.

    Attributes:
        path: the file or folder to open.
        weights: what `Checkpoint.weights()` must return, bit for bit, by cleaned-up name.
        ema: likewise `weights("ema")`; None: it must hold none.
        hints: what the optimizer state, hyper-parameters or configuration reveal, by dotted setting name (`sam.rho`).
    """

    path: Path
    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """A way to write a checkpoint with the library itself, never an imitation of it.

    Every module `tests/ecosystem/produce_*.py` has a list PRODUCERS of them; `test_table.py` goes through all.

    Attributes:
        format: the row's format, in a user's words ("Lightning .ckpt").
        kind: the expected `Checkpoint.format`.
        how: the call that wrote it ("Trainer.save_checkpoint, lightning 2.6").
        library: the distribution whose version the table shows; None: torch.
        make: writes into an empty folder.
        reads: what samdiag reads beside the weights, in a user's words ("rho, lr, momentum; hyper-parameters").
    """

    format: str
    kind: str
    how: str
    make: Callable[[Path], Made]
    reads: str
    library: str | None = None
