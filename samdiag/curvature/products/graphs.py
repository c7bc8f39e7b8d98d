"""Gradient graphs kept at a point: how large they are, how many fit, and building them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from samdiag.curvature.memory import Budget, default_budget, split_budget
from samdiag.curvature.products.batch_loss import BatchLoss, Piece
from samdiag.user_errors import is_out_of_memory

BASIS_VECTORS = 64  # what both ends took on the reference networks (25–61); a basis that must do with less restarts

ROUNDING = 1.000001  # of sums of bytes over batches in another order


class KeptGraphs:
    """The memory that kept graphs may have, and the building of as many as fit.

    Attributes:
        memory: bytes for graphs and Krylov basis together; None: from what the device has free when first asked.
        limit: at most these bytes for graphs; 0: none are kept, as after memory has run out.
        sample_bytes: measured size of one sample's graph; None: not known yet.
    """

    def __init__(self, device: torch.device, *, memory: int | None = None, limit: int | None = None) -> None:
        self.device, self.memory, self.limit = device, memory, limit
        self.sample_bytes: float | None = None

    @property
    def unknown(self) -> bool:
        """Whether the size of a graph is still to be measured."""
        return self.sample_bytes is None and self.limit != 0

    def budget(self, num_samples: int, flat: Tensor) -> Budget:
        """The parts of graphs and basis for `num_samples` samples and vectors like `flat`."""
        if self.memory is None:
            self.memory = default_budget(self.device)
        needed = math.ceil(ROUNDING * (self.sample_bytes or 0.0) * num_samples) if self.limit != 0 else 0
        if self.limit is not None:
            needed = min(needed, self.limit)
        basis = BASIS_VECTORS * flat.numel() * flat.element_size()
        return split_budget(self.memory, graphs=needed, basis=basis)

    def left(self, pieces: list[Piece], flat: Tensor) -> int | None:
        """Bytes for more graphs beside those of `pieces` and a basis; None: nothing has been measured, and no limit."""
        if self.limit == 0 or self.sample_bytes is None or self.memory is None:
            return self.limit
        taken = self.sample_bytes * sum(p.count for p in pieces if p.graph is not None)
        basis = min(BASIS_VECTORS * flat.numel() * flat.element_size(), self.memory // 2)
        return max(0, int((self.memory - basis if self.limit is None else self.limit) - taken))

    def measure(self, piece: Piece, function: BatchLoss) -> None:
        """Counts the bytes that autograd saves for the piece's gradient graph, the parameters themselves left out."""
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # the tensor itself would make a reference cycle out of saved outputs

        own = {p.untyped_storage().data_ptr() for p in function.model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            function.graph(piece.data)
        self.sample_bytes = sum(size for key, size in storages.items() if key not in own) / piece.count

    def build(self, pieces: list[Piece], function: BatchLoss, num_samples: int) -> None:
        """Builds the graphs of as many pieces as fit; the rest is recomputed every time.

        Where memory runs out nevertheless, none are kept from now on.
        """
        if self.limit == 0:
            return
        left = float(self.budget(num_samples, function.flat).graphs)
        try:
            for piece in pieces:
                left -= (self.sample_bytes or 0.0) * piece.count
                if left < 0:
                    return
                piece.graph = function.graph(piece.data)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            for piece in pieces:
                piece.graph = None
            self.limit = 0
