"""The benchmarks' own Hessian in float64, which every answer is judged by; no tool under test has a part in it."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from cases import Case
from data import made
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

REFERENCE_TOL = 3e-4  # relative residual; the eigenvalue's error is its square over the gap, about 1e-6 at the worst
NUM_LANCZOS = 40  # columns of the reference's basis: twice scipy's least, so that it restarts less often
GOOD = 1e-2  # relative residual that counts as a right answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Both ends of the spectrum: Rayleigh quotients in float64 with the relative residuals that prove them."""

    top: float
    bottom: float
    top_residual: float
    bottom_residual: float


class Exact:
    """The Hessian of a case's mean loss by double backward, samples weighted equally; in float64 unless said.

    Args:
        case: model, batches, criterion.
        device: where it computes.
        keep: whether to keep the graphs of all batches between products.
        dtype: of the model.
    """

    def __init__(self, case: Case, device: torch.device, *, keep: bool, dtype: torch.dtype = torch.float64) -> None:
        self.device, self.keep, self.case, self.dtype = device, keep, case, dtype
        self._model = copy.deepcopy(case.model).to(device=device, dtype=dtype)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._graphs: list[tuple[Tensor, ...] | None] = [None] * len(case.batches)

    def product(self, vector: Tensor) -> Tensor:
        """H·vector [num_params] in float64, in the order of `model.parameters()`."""
        sizes = [p.numel() for p in self._parameters]
        shares = [
            part.view(p.shape)
            for part, p in zip(vector.to(self.device, self.dtype).split(sizes), self._parameters, strict=True)
        ]
        total = torch.zeros(sum(sizes), dtype=torch.float64, device=self.device)
        for i, (inputs, _) in enumerate(self.case.batches):
            graph = self._graphs[i] or self._gradient(i)
            own = torch.autograd.grad(graph, self._parameters, shares, retain_graph=self.keep)
            total += len(inputs) / self.case.num_samples * torch.cat([part.reshape(-1) for part in own])
            if self.keep:
                self._graphs[i] = graph
        return total

    def _gradient(self, i: int) -> tuple[Tensor, ...]:
        inputs, targets = (t.to(self.device) for t in self.case.batches[i])
        wide = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            loss = self.case.loss(self._model, (wide, targets))
            return torch.autograd.grad(loss, self._parameters, create_graph=True)

    def rayleigh(self, vector: Tensor) -> tuple[float, float]:
        """(qᵀHq, ‖Hq − qᵀHq·q‖ over it), q the unit vector along `vector`."""
        q, image = self._image(vector)
        value = float(torch.dot(q, image))
        return value, float(torch.linalg.vector_norm(image - value * q)) / abs(value)

    def residual(self, value: float, vector: Tensor) -> float:
        """‖Hq − value·q‖/|value|, q the unit vector along `vector`."""
        q, image = self._image(vector)
        return float(torch.linalg.vector_norm(image - value * q)) / abs(value)

    def _image(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        q = vector.detach().to(self.device, torch.float64)
        q = q / torch.linalg.vector_norm(q)
        return q, self.product(q)

    def close(self) -> None:
        """Frees the graphs."""
        self._graphs = [None] * len(self._graphs)


def reference(case: Case, exact: Exact) -> Reference:
    """Both ends by scipy's eigsh, the vectors from a float32 product and the values from `exact`; cached."""
    if case.checkpoint is None:
        return _solve(case, exact)
    path = made(
        f"{case.checkpoint.stem}-reference-{case.digest()}.json",
        lambda path: path.write_text(json.dumps(asdict(_solve(case, exact)))),
    )
    return Reference(**json.loads(path.read_text()))


def _solve(case: Case, exact: Exact) -> Reference:
    dim, single = case.num_params, Exact(case, exact.device, keep=True, dtype=torch.float32)

    def product(vector: np.ndarray) -> np.ndarray:
        return single.product(torch.from_numpy(vector).reshape(-1)).cpu().numpy()

    operator = LinearOperator((dim, dim), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(dim)
    vectors = eigsh(operator, k=2, which="BE", tol=REFERENCE_TOL, ncv=min(NUM_LANCZOS, dim), v0=start, rng=0)[1]
    single.close()
    (bottom, low), (top, high) = (exact.rayleigh(torch.from_numpy(vectors[:, i].copy())) for i in (0, 1))
    return Reference(top=top, bottom=bottom, top_residual=high, bottom_residual=low)
