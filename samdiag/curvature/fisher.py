"""The empirical Fisher matrix, the mean over samples of g_i g_iᵀ, as products."""

from __future__ import annotations

import torch
from torch import Tensor

from samdiag.curvature.batches import cut_into
from samdiag.curvature.gauss_newton import GaussNewton
from samdiag.curvature.objective import Objective
from samdiag.curvature.outputs import Split
from samdiag.curvature.restoring import batch_norms
from samdiag.errors import CannotDecide, UsageError

CHECKED = 4  # samples of the first batch whose gradients are compared with those of the batch
AGREEMENT = 1e-2  # relative: float32 gradients of one sample agree to 1e-5, a wrong weight of a sample does not


class Fisher(GaussNewton):
    """F = mean over samples of g_i g_iᵀ, g_i the gradient of sample i's own loss, at a Gauss-Newton product's price.

    With r_i = n ∂ℓ/∂z_i the slope of sample i's loss at the model's output, g_i = J_iᵀ r_i, so that
    F v = (1/n) Jᵀ [r_i (r_i · (J v)_i)]: one J v and one Jᵀ of a whole batch. It needs a loss that is a mean over
    samples, and outputs whose first dimension counts them; a few samples' own gradients are compared first.

    Source: Martens, New insights and perspectives on the natural gradient method, JMLR 21 (2020), Sec. 11.
    """

    name = "empirical Fisher matrix"

    def __init__(self, objective: Objective) -> None:
        if objective.train_mode and batch_norms(objective.model):
            raise UsageError(
                "no empirical Fisher matrix: with BatchNorm in train mode a sample has no gradient of its own",
                "use --mode eval, or leave it out: --matrix hessian,ggn",
            )
        super().__init__(objective)

    def _batch_product(self, split: Split, vector: Tensor) -> Tensor:
        parameters, count = self.objective.parameters, split.count
        slopes, direct = self._slopes(split)
        pushed = split.push(parameters, self._shaped(vector)).reshape(count, -1)
        along = (slopes * pushed).sum(dim=1) + torch.dot(direct, vector)  # g_i · v [count]
        weighted = (slopes * along[:, None] / count).reshape(split.output.shape)
        return self._flat(split.pull(parameters, weighted)) + direct * along.mean()

    def _slopes(self, split: Split) -> tuple[Tensor, Tensor]:
        """r [count, outputs of a sample], and the gradient [num_params] of what every sample's loss has beside it."""
        z = split.leaf
        if z.dim() < 1 or z.shape[0] != split.count:
            raise CannotDecide(
                f"no {self.name}: the output has shape {tuple(z.shape)} for {split.count} samples",
                "return one row of outputs per sample, or leave it out: --matrix hessian,ggn",
            )
        slope, own = split.own_slopes(self.objective.parameters)
        return split.count * slope.detach().reshape(split.count, -1), self._flat(own)

    def check(self, generator: torch.Generator) -> float:
        """As for the Gauss-Newton matrix, and the gradients of single samples against those in their batch."""
        error = super().check(generator)
        objective = self.objective
        data, count = objective.batches[0], objective.counts[0]
        pieces = cut_into(data, count, 1)
        if count > 1 and len(pieces) != count:
            raise CannotDecide(
                f"no {self.name}: a batch of {count} samples cannot be cut into single ones",
                "give batches of tensors whose first dimension counts samples, or --matrix hessian,ggn",
            )
        split = self._split(0)
        slopes, direct = self._slopes(split)
        for i in range(min(CHECKED, count)):
            only = torch.zeros_like(slopes)
            only[i] = slopes[i]
            inside = self._flat(split.pull(objective.parameters, only.reshape(split.output.shape))) + direct
            _, alone = objective.gradient_of([pieces[i]])
            gap = float(torch.linalg.vector_norm(inside.double() - alone))
            if gap > AGREEMENT * max(float(torch.linalg.vector_norm(alone)), 1e-6):
                raise CannotDecide(
                    f"no {self.name}: the gradient of a sample in its batch is not that of the sample alone",
                    "the loss must be a plain mean over independent samples; or leave it out: --matrix hessian,ggn",
                )
        return error
