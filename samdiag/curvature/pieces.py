"""The samples of an objective as it evaluates them: batches, several joined, and smaller ones where memory ran out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

from samdiag.curvature.batches import halve
from samdiag.curvature.products.batch_loss import Piece
from samdiag.curvature.products.graphs import KeptGraphs
from samdiag.errors import CannotDecide
from samdiag.user_errors import is_out_of_memory

T = TypeVar("T")


class Regrouped(Exception):
    """Joined batches did not fit in memory and were taken apart: the evaluation starts again."""


class Pieces:
    """Batches with their sample counts, and the same samples in larger pieces where that is faster.

    Attributes:
        batches: as given, or halves of them.
        joined: the same samples in larger pieces; None: there are none.
        united: whether the joined pieces are for losses and gradients as well, and not for products alone.
        graphs: the memory of the pieces' graphs.
        split: how many times a batch was halved because memory ran out.
        whole_batches: whether batches must stay whole, because BatchNorm uses their own statistics.
    """

    def __init__(
        self, batches: Iterable[tuple[Any, int]], graphs: KeptGraphs, device: torch.device, *, whole_batches: bool
    ) -> None:
        self.batches = [Piece(data, count, i % 2) for i, (data, count) in enumerate(batches)]
        self.joined: list[Piece] | None = None
        self.united = False
        self.graphs = graphs
        self.split = 0
        self.whole_batches = whole_batches
        self._device = device

    @property
    def num_samples(self) -> int:
        return sum(b.count for b in self.batches)

    def all(self) -> list[Piece]:
        """Every piece there is, some samples twice."""
        return [*self.batches, *(self.joined or ())]

    def drop_graphs(self) -> None:
        """Frees all kept graphs."""
        for piece in self.all():
            piece.graph = None

    def join(self, pieces: list[Piece] | None, *, united: bool = False) -> None:
        """Puts larger pieces of the same samples beside the batches; None: none."""
        self.drop_graphs()
        self.joined, self.united = pieces, united and pieces is not None

    def at_once(self, *, apart: bool) -> list[Piece]:
        """What losses and gradients run over: the batches, or all samples as one piece."""
        return self.joined if self.united and self.joined is not None and not apart else self.batches

    def for_products(self, *, apart: bool) -> list[Piece]:
        """What products run over: joined batches, except where every batch's own is asked for or has its graph."""
        apart = apart or any(b.graph is not None for b in self.batches)
        return self.batches if apart or self.joined is None else self.joined

    def again(self, evaluate: Callable[[], T]) -> T:
        """What `evaluate` returns, started again where joined batches had to be taken apart."""
        while True:
            try:
                return evaluate()
            except Regrouped:
                continue

    def over(
        self, pieces: list[Piece], work: Callable[[Piece], T], half: int | None = None
    ) -> Iterator[tuple[Piece, T]]:
        """Runs `work` on every piece; one that does not fit in memory is halved for good and tried again."""
        i = 0
        while i < len(pieces):
            piece = pieces[i]
            if half is not None and piece.half != half:
                i += 1
                continue
            try:
                done = work(piece)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if any(p.graph is not None for p in self.all()):  # the kept graphs are what fills the memory
                    self.drop_graphs()
                    self.graphs.limit = 0
                elif pieces is self.joined:
                    self.joined, self.united = None, False
                    raise Regrouped from error
                else:
                    self._halve(i)
                continue
            yield piece, done
            i += 1

    def _halve(self, i: int) -> None:
        batch = self.batches[i]
        batch.graph = None
        if self.whole_batches:
            raise CannotDecide(
                f"out of memory on a batch of {batch.count} samples, whose BatchNorm statistics halving would change",
                "use --mode eval, a smaller training batch, or a machine with more memory",
            )
        halves = halve(batch.data, batch.count)
        if halves is None:
            raise CannotDecide(
                f"out of memory on a batch of {batch.count} sample(s) that cannot be made smaller",
                "use --device cpu, a smaller input, or a machine with more memory",
            )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        first = batch.count // 2
        self.batches[i : i + 1] = [
            Piece(halves[0], first, batch.half),
            Piece(halves[1], batch.count - first, batch.half),
        ]
        self.joined, self.united = None, False
        self.split += 1
