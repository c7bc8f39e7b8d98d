"""The loss on fixed batches as a function of one flat parameter vector: values, gradients, Hessian products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from samdiag.curvature.batches import halve
from samdiag.curvature.memory import free_memory
from samdiag.curvature.restoring import batch_statistics, borrowed, double_backward_kernels
from samdiag.errors import CannotDecide, UsageError
from samdiag.user_errors import is_out_of_memory

T = TypeVar("T")
PerBatch = Callable[[int, Tensor], None]  # (number of samples, this batch's own gradient or product [num_params])


@dataclass(slots=True)
class _Batch:
    data: Any
    count: int
    half: int  # 0 or 1: which of two halves of the data it belongs to, inherited when it is split
    graph: tuple[list[Tensor], list[int]] | None = (
        None  # gradient tensors with their graph, and which parameters they are for
    )


class Objective:
    """Mean loss over all samples of `batches`, each batch weighted by its sample count.

    Use as a context: inside, the model is borrowed and `flat` is its parameter vector; afterwards it is back exactly
    as it was.

    Attributes:
        flat: [num_params] the current point; change it with `move_to` only.
        num_products: full-data Hessian-vector products so far; other batches count by their share.
        num_gradients: full-data gradients so far.
        split: how many times a batch was halved because memory ran out.
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
        graph_memory: int | None = None,
        train_mode: bool = False,
    ) -> None:
        self.train_mode = train_mode
        self.model, self.loss_function, self.device, self.dtype = model, loss, device, dtype
        self._batches = [_Batch(data, count, i % 2) for i, (data, count) in enumerate(batches)]
        self._graph_memory = graph_memory
        self.num_products = 0.0
        self.num_gradients = 0.0
        self.split = 0
        self.used: set[int] = set()  # positions of parameters that some batch's loss depends on
        self._sample_bytes: float | None = None
        self.parameters: list[nn.Parameter] = []
        self.flat = torch.empty(0)

    @contextmanager
    def borrowed(self) -> Iterator[Objective]:
        """The objective ready for use; the model is given back exactly on leaving."""
        with (
            borrowed(self.model, self.device, self.dtype) as (parameters, flat),
            double_backward_kernels(self.model),
            batch_statistics(self.model) if self.train_mode else nullcontext(),
        ):
            self.parameters, self.flat = parameters, flat
            self._offsets = [0]
            for p in parameters:
                self._offsets.append(self._offsets[-1] + p.numel())
            try:
                yield self
            finally:
                self.drop_graphs()
                self.parameters = []

    @contextmanager
    def on(self, pieces: list[tuple[Any, int]]) -> Iterator[Objective]:
        """The same model at the same point on other batches, with graphs of its own while the context lasts.

        Neither objective may be moved inside. Products and gradients are counted here by their share of the samples.
        """
        other = Objective(
            self.model,
            self.loss_function,
            pieces,
            device=self.device,
            dtype=self.dtype,
            graph_memory=self._graph_memory,
            train_mode=self.train_mode,
        )
        other.parameters, other.flat, other._offsets = self.parameters, self.flat, self._offsets
        try:
            yield other
        finally:
            other.drop_graphs()
            share = other.num_samples / self.num_samples
            self.num_products += share * other.num_products
            self.num_gradients += share * other.num_gradients

    @property
    def num_params(self) -> int:
        return int(self.flat.numel())

    @property
    def num_samples(self) -> int:
        return sum(b.count for b in self._batches)

    @property
    def counts(self) -> list[int]:
        return [b.count for b in self._batches]

    @property
    def batches(self) -> list[Any]:
        return [b.data for b in self._batches]

    def move_to(self, point: Tensor) -> None:
        """Sets the parameters to `point` [num_params]; kept graphs belong to the old point and are dropped."""
        self.drop_graphs()
        self.flat.copy_(point)

    def drop_graphs(self) -> None:
        for batch in self._batches:
            batch.graph = None

    # ---------------------------------------------------------------- evaluations

    def loss(self, each: Callable[[int, float], None] | None = None) -> float:
        """Mean loss at the current point; `each(count, loss of the batch)` sees every batch."""
        total = 0.0
        with torch.no_grad():
            for batch, value in self._over_batches(lambda b: float(self._scalar_loss(b).double())):
                total += batch.count * value
                if each:
                    each(batch.count, value)
        return total / self.num_samples

    def gradient(
        self, each: Callable[[int, float, Tensor], None] | None = None, *, half: int | None = None
    ) -> tuple[float, Tensor]:
        """Mean loss and its gradient [num_params] in float64.

        Args:
            each: sees (count, loss, gradient) of every batch.
            half: 0 or 1 takes every other batch only, beginning with that one.
        """
        total, samples = 0.0, 0
        gradient = torch.zeros(self.num_params, dtype=torch.float64, device=self.device)
        for batch, (value, own) in self._over_batches(self._batch_gradient, half):
            total += batch.count * value
            samples += batch.count
            gradient.add_(own, alpha=batch.count)
            if each:
                each(batch.count, value, own)
        self.num_gradients += 1 if half is None else 0.5
        return total / samples, gradient / samples

    @property
    def halves(self) -> list[int]:
        """For every batch, which of two halves of the data it belongs to."""
        return [b.half for b in self._batches]

    def gradient_of(self, pieces: list[tuple[Any, int]]) -> tuple[float, Tensor]:
        """Mean loss and gradient [num_params] in float64 of other batches, each with its sample count."""
        total, samples = 0.0, sum(count for _, count in pieces)
        gradient = torch.zeros(self.num_params, dtype=torch.float64, device=self.device)
        for data, count in pieces:
            value, own = self._batch_gradient(_Batch(data, count, 0))
            total += count * value
            gradient.add_(own, alpha=count)
        self.num_gradients += samples / self.num_samples
        return total / samples, gradient / samples

    def product(self, vector: Tensor, each: PerBatch | None = None) -> Tensor:
        """Hessian times `vector` [num_params] at the current point; graphs are kept while they fit in memory."""
        self._keep_graphs()
        vector = vector.to(self.dtype)
        result = torch.zeros_like(self.flat)
        for batch, own in self._over_batches(lambda b: self._batch_product(b, vector)):
            result.add_(own, alpha=batch.count / self.num_samples)
            if each:
                each(batch.count, own)
        self.num_products += 1
        return result

    def product_of(self, pieces: list[tuple[Any, int]], vector: Tensor) -> Tensor:
        """Hessian of other batches' mean loss times `vector` [num_params]; their graphs are not kept."""
        samples = sum(count for _, count in pieces)
        result = torch.zeros_like(self.flat)
        for data, count in pieces:
            result.add_(self._batch_product(_Batch(data, count, 0), vector.to(self.dtype)), alpha=count / samples)
        self.num_products += samples / self.num_samples
        return result

    # ---------------------------------------------------------------- one batch

    def _scalar_loss(self, batch: _Batch) -> Tensor:
        value = self.loss_function(self.model, batch.data)
        if not isinstance(value, Tensor):
            raise UsageError(
                f"the loss returned {type(value).__name__}, not a tensor",
                "return the mean loss of the batch as a 0-dim tensor that depends on the model's parameters",
            )
        if value.numel() != 1:
            raise UsageError(
                f"the loss is not a scalar: it has shape {tuple(value.shape)}",
                "return the mean over the batch, e.g. loss.mean()",
            )
        if value.is_complex():
            raise UsageError("the loss is complex", "return a real scalar")
        return value.reshape(())

    def _differentiable_loss(self, batch: _Batch) -> Tensor:
        with torch.enable_grad():
            value = self._scalar_loss(batch)
        if not value.requires_grad:
            raise UsageError(
                "the loss does not depend on the model's parameters",
                "compute it from the model that is passed to loss(model, batch), without torch.no_grad() or detach()",
            )
        return value

    def _batch_gradient(self, batch: _Batch) -> tuple[float, Tensor]:
        value = self._differentiable_loss(batch)
        with _differentiating("the gradient"):
            grads = torch.autograd.grad(value, self.parameters, allow_unused=True)
        self.used.update(i for i, g in enumerate(grads) if g is not None)
        if all(g is None for g in grads):
            raise UsageError(
                "the loss does not depend on the model's trainable parameters",
                "compute it from the model that is passed to loss(model, batch)",
            )
        return float(value.detach().double()), self._flatten(grads)

    def _flatten(self, grads: Iterable[Tensor | None]) -> Tensor:
        own = torch.zeros_like(self.flat)
        for i, g in enumerate(grads):
            if g is not None:
                dense = g.detach().to_dense() if g.layout != torch.strided else g.detach()
                own[self._offsets[i] : self._offsets[i + 1]].copy_(dense.reshape(-1))
        return own

    def _build_graph(self, batch: _Batch) -> tuple[list[Tensor], list[int]]:
        value = self._differentiable_loss(batch)
        with _differentiating("the gradient's graph"):
            grads = torch.autograd.grad(value, self.parameters, create_graph=True, allow_unused=True)
        used = [i for i, g in enumerate(grads) if g is not None and g.requires_grad]
        return [g for g in grads if g is not None and g.requires_grad], used

    def _batch_product(self, batch: _Batch, vector: Tensor) -> Tensor:
        grads, used = batch.graph or self._build_graph(batch)
        if not grads:  # the loss is linear in the parameters: no curvature
            return torch.zeros_like(self.flat)
        shares = [
            vector[self._offsets[i] : self._offsets[i + 1]].view(g.shape) for i, g in zip(used, grads, strict=True)
        ]
        with _differentiating("the second derivative"):
            products = torch.autograd.grad(
                grads, self.parameters, grad_outputs=shares, retain_graph=batch.graph is not None, allow_unused=True
            )
        return self._flatten(products)

    # ---------------------------------------------------------------- memory

    def _keep_graphs(self) -> None:
        """Builds the gradient graph of as many batches as fit the budget; the rest is recomputed every time."""
        if any(b.graph is not None for b in self._batches) or self._graph_memory == 0:
            return
        budget = self._graph_memory if self._graph_memory is not None else free_memory(self.device) // 2
        if self._sample_bytes is None:
            self._sample_bytes = self._graph_bytes_per_sample()
        used = 0.0
        try:
            for batch in self._batches:
                used += self._sample_bytes * batch.count
                if used > budget:
                    return
                batch.graph = self._build_graph(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.drop_graphs()
            self._graph_memory = 0  # from now on every product recomputes

    def _graph_bytes_per_sample(self) -> float:
        """Bytes that autograd saves for one sample's gradient graph, counted while building the first batch's."""
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # the tensor itself would make a reference cycle out of saved outputs

        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        for batch, _ in self._over_batches(lambda b: self._counted_graph(b, note)):
            return sum(size for key, size in storages.items() if key not in own) / batch.count
        return 0.0

    def _counted_graph(self, batch: _Batch, note: Callable[[Tensor], Tensor]) -> None:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            self._build_graph(batch)

    def _over_batches(self, work: Callable[[_Batch], T], half: int | None = None) -> Iterator[tuple[_Batch, T]]:
        """Runs `work` on every batch; one that does not fit in memory is halved for good and tried again."""
        i = 0
        while i < len(self._batches):
            batch = self._batches[i]
            if half is not None and batch.half != half:
                i += 1
                continue
            try:
                done = work(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if any(b.graph is not None for b in self._batches):  # the kept graphs are what fills the memory
                    self.drop_graphs()
                    self._graph_memory = 0
                else:
                    self._split(i)
                continue
            yield batch, done
            i += 1

    def _split(self, i: int) -> None:
        batch = self._batches[i]
        batch.graph = None
        if self.train_mode:
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
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        first = batch.count // 2
        self._batches[i : i + 1] = [
            _Batch(halves[0], first, batch.half),
            _Batch(halves[1], batch.count - first, batch.half),
        ]
        self.split += 1


@contextmanager
def _differentiating(what: str) -> Iterator[None]:
    """Autograd's refusals in one line; memory that runs out passes, so that the batch is halved."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:300]
        raise CannotDecide(
            f"{what} of the loss cannot be computed: {text}",
            "the Hessian needs a loss that is twice differentiable: eager attention, no compiled or fused layers",
        ) from error
