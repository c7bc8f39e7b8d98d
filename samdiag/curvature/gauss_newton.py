"""The generalised Gauss-Newton matrix of an opaque loss, as products."""

from __future__ import annotations

import torch
from torch import Tensor

from samdiag.curvature.memory import free_memory
from samdiag.curvature.objective import Objective, PerBatch
from samdiag.curvature.outputs import Shares, Split, split_loss
from samdiag.errors import CannotDecide

CHECK_STEPS = (1e-2, 1e-3)  # of |x|, along a random direction: float32 outputs carry 1e-7, and kinks are few
CHECK_TOLERANCE = 0.05  # known silent defects of double backward are 10 to 80 % wrong
DIFFERENTIABLE_TODO = "leave this matrix out (--matrix hessian): eager layers are needed, as for the Hessian"


class GaussNewton:
    """G = mean over samples of J_iᵀ (∇²_z ℓ_i) J_i, the Hessian of the loss with the model linearised.

    Where the loss sees parameters directly (weight decay in the objective), the Hessian of that part is added. Graphs
    are kept for as many batches as fit in half of the free memory; a product then costs about two gradients.

    Attributes:
        num_products: products taken on all data.

    Source: Schraudolph, Fast curvature matrix-vector products, Neural Computation 14 (2002); Martens, New insights and
    perspectives on the natural gradient method, JMLR 21 (2020), Sec. 8.
    """

    name = "Gauss-Newton matrix"

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.num_products = 0
        self._kept: dict[int, Split] = {}
        self._keep: int | None = None  # batches that may be kept; None: not known yet
        self._offsets = [0]
        for p in objective.parameters:
            self._offsets.append(self._offsets[-1] + p.numel())

    @property
    def num_params(self) -> int:
        return self.objective.num_params

    def drop_graphs(self) -> None:
        self._kept.clear()

    def product(self, vector: Tensor, each: PerBatch | None = None) -> Tensor:
        """The matrix times `vector` [num_params]; `each(count, the batch's own product)` sees every batch."""
        objective = self.objective
        vector = vector.to(objective.dtype)
        result = torch.zeros_like(objective.flat)
        for i, count in enumerate(objective.counts):
            own = self._batch_product(self._split(i), vector)
            result.add_(own, alpha=count / objective.num_samples)
            if each:
                each(count, own)
        self.num_products += 1
        return result

    def _batch_product(self, split: Split, vector: Tensor) -> Tensor:
        pushed = split.push(self.objective.parameters, self._shaped(vector))
        return self._flat(split.pull(self.objective.parameters, self._middle(split, pushed))) + self._direct(
            split, vector
        )

    def _middle(self, split: Split, pushed: Tensor) -> Tensor:
        """(∇²_z ℓ) J v, in the shape of z."""
        slope, _ = split.own_slopes(self.objective.parameters)
        if not slope.requires_grad:
            return torch.zeros_like(pushed)
        (bent,) = torch.autograd.grad(slope, split.leaf, grad_outputs=pushed, retain_graph=True, allow_unused=True)
        return torch.zeros_like(pushed) if bent is None else bent.detach()

    def _direct(self, split: Split, vector: Tensor) -> Tensor:
        """The Hessian of what the loss takes from the parameters directly, times `vector`."""
        parameters = self.objective.parameters
        _, slopes = split.own_slopes(parameters)
        live = [(s, v) for s, v in zip(slopes, self._shaped(vector), strict=True) if s is not None and s.requires_grad]
        if not live:
            return torch.zeros_like(self.objective.flat)
        rows = torch.autograd.grad(
            [s for s, _ in live],
            parameters,
            grad_outputs=[v for _, v in live],
            retain_graph=True,
            allow_unused=True,
        )
        return self._flat(list(rows))

    def _split(self, i: int) -> Split:
        found = self._kept.get(i)
        if found is not None:
            return found
        objective = self.objective
        split = split_loss(
            objective.model, objective.loss_function, objective.batches[i], objective.counts[i], matrix=self.name
        )
        if self._keep is None:
            self._keep = self._affordable(i)
        if i < self._keep:
            self._kept[i] = split
        return split

    def _affordable(self, i: int) -> int:
        """How many batches' graphs fit in half of the free memory, judged by what this batch's graph saves."""
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()

        objective = self.objective
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            split = split_loss(
                objective.model, objective.loss_function, objective.batches[i], objective.counts[i], matrix=self.name
            )
            split.push(objective.parameters, self._shaped(torch.zeros_like(objective.flat)))
        per_sample = sum(storages.values()) / objective.counts[i]
        budget, kept = free_memory(objective.device) // 2, 0
        for count in objective.counts:
            budget -= int(per_sample * count)
            if budget < 0:
                break
            kept += 1
        return kept

    def check(self, generator: torch.Generator) -> float:
        """Relative error of J v against a central difference of the model's output on the first batch.

        Raises:
            CannotDecide: it is above CHECK_TOLERANCE: the second derivatives that J v rests on are wrong.
        """
        objective = self.objective
        x = objective.flat.clone()
        v = torch.randn(x.numel(), generator=generator).to(x)
        v = v / torch.linalg.vector_norm(v)
        pushed = self._split(0).push(objective.parameters, self._shaped(v)).double()
        norm = float(torch.linalg.vector_norm(pushed))
        errors = []
        for step in CHECK_STEPS:
            size = step * max(float(torch.linalg.vector_norm(x)), 1.0)
            ends = [self._output_at(x + sign * size * v) for sign in (1.0, -1.0)]
            objective.move_to(x)
            slope = (ends[0] - ends[1]) / (2 * size)
            gap = float(torch.linalg.vector_norm(slope - pushed))
            errors.append(gap / norm if norm > 0 else gap)
        error = min(errors)
        if error > CHECK_TOLERANCE:
            raise CannotDecide(
                f"no {self.name}: its derivatives disagree with differences of the model's output by "
                f"{100 * error:.0f} %",
                DIFFERENTIABLE_TODO,
            )
        return error

    def _output_at(self, point: Tensor) -> Tensor:
        objective = self.objective
        objective.move_to(point)
        split = split_loss(
            objective.model, objective.loss_function, objective.batches[0], objective.counts[0], matrix=self.name
        )
        return split.output.detach().double()

    def _shaped(self, vector: Tensor) -> list[Tensor]:
        return [
            vector[a:b].view(p.shape)
            for a, b, p in zip(self._offsets, self._offsets[1:], self.objective.parameters, strict=False)
        ]

    def _flat(self, shares: Shares) -> Tensor:
        result = torch.zeros_like(self.objective.flat)
        for i, share in enumerate(shares):
            if share is not None:
                dense = share.detach().to_dense() if share.layout != torch.strided else share.detach()
                result[self._offsets[i] : self._offsets[i + 1]].copy_(dense.reshape(-1))
        return result
