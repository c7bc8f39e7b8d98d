"""The loss on fixed batches as a function of one flat parameter vector: values, gradients, Hessian products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from samdiag.curvature.pieces import Pieces
from samdiag.curvature.products.batch_loss import BatchLoss, Piece, accumulate, dense
from samdiag.curvature.products.engine import Engine
from samdiag.curvature.products.graphs import KeptGraphs
from samdiag.curvature.products.kept import Kept
from samdiag.curvature.products.precision import full_precision
from samdiag.curvature.restoring import batch_statistics, borrowed, double_backward_kernels
from samdiag.keeping import Keep

T = TypeVar("T")
PerBatch = Callable[[int, Tensor], None]  # (number of samples, this batch's own product [num_params])


class Objective:
    """Mean loss over all samples of `batches`, each batch weighted by its sample count.

    Use as a context: inside, the model is borrowed and `flat` is its parameter vector; afterwards it is back exactly
    as it was.

    Attributes:
        flat: [num_params] the current point; change it with `move_to` only.
        engine: what computes Hessian products: kept graphs, until `products.choice` finds a faster one.
        graphs: the graphs kept for it, and their part of the memory budget.
        num_products: full-data Hessian-vector products so far; other batches count by their share.
        num_gradients: full-data gradients so far.
        train_mode: BatchNorm uses each batch's own statistics, so that batches cannot be halved.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Any],
        batches: Iterable[tuple[Any, int]],
        *,
        device: torch.device,
        dtype: torch.dtype,
        memory: int | None = None,
        graph_memory: int | None = None,
        train_mode: bool = False,
        keep: Keep | None = None,
    ) -> None:
        """An objective on `batches`, each with its sample count.

        Args:
            model, loss: the mean loss of a batch is `loss(model, batch)`.
            batches: data on `device`, and how many samples each has.
            device, dtype: where and in which floating-point type to evaluate.
            memory: bytes for kept graphs and a Krylov basis together; None: from what the device has free.
            graph_memory: at most these bytes for kept graphs; 0 keeps none.
            train_mode: see the class.
            keep: where compiled products stay for the next checkpoint; None: nowhere.
        """
        self.train_mode, self.keep = train_mode, keep or Keep()
        self.model, self.loss_function, self.device, self.dtype = model, loss, device, dtype
        self.graphs = KeptGraphs(device, memory=memory, limit=graph_memory)
        self._pieces = Pieces(batches, self.graphs, device, whole_batches=train_mode)
        self.num_products = 0.0
        self.num_gradients = 0.0
        self.parameters: list[nn.Parameter] = []
        self.flat = torch.empty(0)
        self.function = BatchLoss(model, loss, [], self.flat, self.keep)
        self.engine: Engine = Kept(self.function)

    @contextmanager
    def borrowed(self) -> Iterator[Objective]:
        """The objective ready for use; the model is given back exactly on leaving."""
        with (
            borrowed(self.model, self.device, self.dtype) as (parameters, flat),
            double_backward_kernels(self.model),
            full_precision(),
            batch_statistics(self.model) if self.train_mode else nullcontext(),
        ):
            self._stand_at(BatchLoss(self.model, self.loss_function, parameters, flat, self.keep))
            try:
                yield self
            finally:
                self.drop_graphs()
                self._stand_at(BatchLoss(self.model, self.loss_function, [], flat, self.keep))

    @contextmanager
    def on(self, pieces: list[tuple[Any, int]]) -> Iterator[Objective]:
        """The same model at the same point on other batches, with graphs of its own while the context lasts.

        Neither objective may be moved inside. It uses the same engine, and for its graphs what this one's leave of the
        memory. Products and gradients are counted here by their share of the samples.
        """
        other = Objective(
            self.model,
            self.loss_function,
            pieces,
            device=self.device,
            dtype=self.dtype,
            memory=self.graphs.memory,
            graph_memory=self.graphs.left(self._pieces.all(), self.flat),
            train_mode=self.train_mode,
        )
        other.parameters, other.flat, other.function = self.parameters, self.flat, self.function
        other.engine, other.graphs.sample_bytes = self.engine, self.graphs.sample_bytes
        try:
            yield other
        finally:
            other.drop_graphs()
            share = other.num_samples / self.num_samples
            self.num_products += share * other.num_products
            self.num_gradients += share * other.num_gradients

    def _stand_at(self, function: BatchLoss) -> None:
        self.function, self.parameters, self.flat = function, function.parameters, function.flat
        self.engine = Kept(function)
        self._pieces.join(None)

    @property
    def num_params(self) -> int:
        return int(self.flat.numel())

    @property
    def num_samples(self) -> int:
        return self._pieces.num_samples

    @property
    def counts(self) -> list[int]:
        return [b.count for b in self._pieces.batches]

    @property
    def batches(self) -> list[Any]:
        return [b.data for b in self._pieces.batches]

    @property
    def halves(self) -> list[int]:
        """For every batch, which of two halves of the data it belongs to."""
        return [b.half for b in self._pieces.batches]

    @property
    def pieces(self) -> list[Piece]:
        """The batches with their counts, without graphs."""
        return [Piece(b.data, b.count, b.half) for b in self._pieces.batches]

    @property
    def bytes_of_graph(self) -> float | None:
        """Bytes of one sample's gradient graph; None where none may be kept."""
        self._know_graphs()
        return self.graphs.sample_bytes

    @property
    def used(self) -> set[int]:
        """Positions of the parameters that some batch's loss depends on."""
        return self.function.used

    @property
    def memory_for_basis(self) -> int:
        """Bytes that a Krylov basis may have, copies included: what the kept graphs leave of the budget."""
        self._know_graphs()
        return self.graphs.budget(self.num_samples, self.flat).basis

    @property
    def memory_for_graphs(self) -> int:
        """Bytes that kept graphs may have."""
        self._know_graphs()
        return self.graphs.budget(self.num_samples, self.flat).graphs

    @property
    def split(self) -> int:
        """How many times a batch was halved because memory ran out."""
        return self._pieces.split

    @property
    def kept_share(self) -> float:
        """Share of the samples whose gradient graph is kept at present."""
        joined = self._pieces.joined
        pieces = joined if joined and any(p.graph for p in joined) else self._pieces.batches
        return sum(p.count for p in pieces if p.graph is not None) / self.num_samples

    def largest_batch(self) -> Piece:
        """The batch with the most samples, without its graph."""
        largest = max(self._pieces.batches, key=lambda b: b.count)
        return Piece(largest.data, largest.count)

    def move_to(self, point: Tensor) -> None:
        """Sets the parameters to `point` [num_params]; kept graphs belong to the old point and are dropped."""
        self.drop_graphs()
        self.flat.copy_(point)

    def drop_graphs(self) -> None:
        """Frees all kept graphs; the next product builds them again."""
        self._pieces.drop_graphs()

    def join(self, pieces: list[Piece] | None) -> None:
        """Evaluates products on `pieces`, the batches joined to larger ones (see `products.joining`); None: as given.

        Products that show every batch its own share, losses and gradients stay with the batches.
        """
        self._pieces.join(pieces)

    def unite(self, whole: Piece) -> None:
        """Evaluates everything that need not show every batch its own share on `whole`, all samples as one piece."""
        self._pieces.join([whole], united=True)

    @property
    def united(self) -> bool:
        """Whether it does."""
        return self._pieces.united

    # ---------------------------------------------------------------- evaluations

    def loss(self, each: Callable[[int, float], None] | None = None) -> float:
        """Mean loss at the current point; `each(count, loss of the batch)` sees every batch."""
        return self._pieces.again(lambda: self._loss(each))

    def _loss(self, each: Callable[[int, float], None] | None) -> float:
        total = 0.0
        with torch.no_grad():
            pieces = self._pieces.at_once(apart=each is not None)
            for piece, value in self._pieces.over(pieces, lambda b: float(self.function.value(b.data).double())):
                total += piece.count * value
                if each:
                    each(piece.count, value)
        return total / self.num_samples

    def gradient(
        self, each: Callable[[int, float, Tensor], None] | None = None, *, half: int | None = None
    ) -> tuple[float, Tensor]:
        """Mean loss and its gradient [num_params] in float64.

        Args:
            each: sees (count, loss, gradient) of every batch.
            half: 0 or 1 takes every other batch only, beginning with that one.
        """
        found = self._pieces.again(lambda: self._mean_gradient(each, half))
        self.num_gradients += 1 if half is None else 0.5
        return found

    def _mean_gradient(
        self, each: Callable[[int, float, Tensor], None] | None, half: int | None
    ) -> tuple[float, Tensor]:
        total, samples = 0.0, 0
        gradient = torch.zeros(self.num_params, dtype=torch.float64, device=self.device)
        pieces = self._pieces.at_once(apart=each is not None or half is not None)
        for piece, (value, own) in self._pieces.over(pieces, self._gradient, half):
            total += piece.count * value
            samples += piece.count
            gradient.add_(own, alpha=piece.count)
            if each:
                each(piece.count, value, own)
        return total / samples, gradient / samples

    def gradient_of(self, pieces: list[tuple[Any, int]]) -> tuple[float, Tensor]:
        """Mean loss and gradient [num_params] in float64 of other batches, each with its sample count."""
        samples = sum(count for _, count in pieces)
        if len(pieces) == 1:  # the step of a training run
            value, own = self._gradient(Piece(*pieces[0]))
            self.num_gradients += samples / self.num_samples
            return value, own.double()
        total = 0.0
        gradient = torch.zeros(self.num_params, dtype=torch.float64, device=self.device)
        for data, count in pieces:
            value, own = self._gradient(Piece(data, count))
            total += count * value
            gradient.add_(own, alpha=count)
        self.num_gradients += samples / self.num_samples
        return total / samples, gradient / samples

    def _gradient(self, piece: Piece) -> tuple[float, Tensor]:
        value, grads = self.function.gradient(piece.data)
        present = [dense(g).reshape(-1) for g in grads if g is not None]
        if len(present) == len(grads):
            return float(value), torch.cat(present)
        own = torch.zeros_like(self.flat)
        for view, g in zip(self.function.views(own), grads, strict=True):
            if g is not None:
                view.copy_(dense(g))
        return float(value), own

    def product(self, vector: Tensor, each: PerBatch | None = None, *, out: Tensor | None = None) -> Tensor:
        """Hessian times `vector` [num_params] at the current point, without waiting for the device.

        Args:
            vector: in any floating-point type.
            each: sees (count, product of the batch alone) of every batch; the tensor is overwritten by the next one.
            out: [num_params] where the result goes; None: a new tensor.
        """
        vector = vector.to(self.dtype)
        result = torch.empty_like(self.flat) if out is None else out
        self._pieces.again(lambda: self._sum_products(vector, result, each))
        self.num_products += 1
        return result

    def block(
        self,
        vectors: Tensor,
        each: Callable[[int, Tensor], None] | None = None,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """Hessian times every row of `vectors` [k, num_params]; a batch whose graph is not kept builds it once for all.

        Args and result as for `product`, with [k, num_params] in place of [num_params].
        """
        vectors = vectors.to(self.dtype)
        result = torch.empty_like(vectors) if out is None else out
        own = torch.empty_like(vectors)

        def sum_up() -> None:
            result.zero_()
            pieces = self._pieces_for(every_batch=each is not None)
            for piece, _ in self._pieces.over(pieces, lambda p: self.engine.block(p, vectors, own)):
                result.add_(own, alpha=piece.count / self.num_samples)
                if each:
                    each(piece.count, own)

        self._pieces.again(sum_up)
        self.num_products += len(vectors)
        return result

    def product_of(self, pieces: list[tuple[Any, int]], vector: Tensor) -> Tensor:
        """Hessian of other batches' mean loss times `vector` [num_params]; their graphs are not kept."""
        samples = sum(count for _, count in pieces)
        result = torch.zeros_like(self.flat)
        views = self.function.views(result)
        with self.engine.along(vector.to(self.dtype)) as work:
            for data, count in pieces:
                accumulate(views, work(Piece(data, count)), count / samples)
        self.num_products += samples / self.num_samples
        return result

    def _sum_products(self, vector: Tensor, result: Tensor, each: PerBatch | None) -> None:
        """Adds up the pieces' products in place; each one's own only where somebody wants to see it."""
        pieces, samples = self._pieces_for(every_batch=each is not None), self.num_samples
        result.zero_()
        own = torch.empty_like(self.flat) if each else result
        views = self.function.views(own)
        with self.engine.along(vector) as work:
            for piece, products in self._pieces.over(pieces, work):
                if each:
                    own.zero_()
                accumulate(views, products, 1.0 if each else piece.count / samples)
                if each:
                    result.add_(own, alpha=piece.count / samples)
                    each(piece.count, own)

    # ---------------------------------------------------------------- memory

    def _pieces_for(self, *, every_batch: bool) -> list[Piece]:
        """What products run over, with as many graphs as fit."""
        pieces = self._pieces.for_products(apart=every_batch)
        if self.engine.keeps and not any(p.graph is not None for p in pieces):
            self.drop_graphs()
            self._know_graphs()
            self.graphs.build(pieces, self.function, self.num_samples)
        return pieces

    def _know_graphs(self) -> None:
        """Measures the bytes of one sample's graph, once; batches that are too large for it are halved."""
        if self.engine.keeps and self.graphs.unknown:
            for _ in self._pieces.over(self._pieces.batches, lambda b: self.graphs.measure(b, self.function)):
                return
