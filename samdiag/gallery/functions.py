"""Functions f(w) of a bare point as problems: no data, no network, and every answer known.

A function is a module whose forward returns f at its parameter `w`, to be used with the loss "model". The batch is a
single number that nobody reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from samdiag.errors import UsageError
from samdiag.types import Problem

Formula = Callable[[Tensor], Tensor]
MOST_DIRECTIONS = 64  # a checkpoint's stamp may name these factories: it may not ask for all memory


class FunctionOfPoint(nn.Module):
    """f(w) in float64, `w` the only parameter.

    Args:
        formula: w [d] → f(w), a 0-dim tensor.
        start: [d], what `w` is before a checkpoint is loaded.
    """

    def __init__(self, formula: Formula, start: Sequence[float]) -> None:
        super().__init__()
        self.formula = formula
        self.w = nn.Parameter(torch.tensor(list(start), dtype=torch.float64))

    def forward(self, _batch: object = None) -> Tensor:
        """f at the present point, whatever the batch."""
        return self.formula(self.w)


def no_data() -> list[Tensor]:
    """One batch of one number, which a function of a point does not read."""
    return [torch.zeros(1, dtype=torch.float64)]


def problem_of(model: nn.Module) -> Problem:
    """`model`, which returns its own loss, as a problem without data."""
    return Problem(model=model, loss=own_loss, batches=no_data())


def own_loss(model: nn.Module, batch: object) -> Tensor:
    """The loss that the model itself returns."""
    value: Tensor = model(batch)
    return value


def hessian_at(formula: Formula, point: Sequence[float]) -> Tensor:
    """The dense float64 Hessian [d, d] of `formula` at `point` [d], by double backward."""
    w = torch.tensor(list(point), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(formula(w), [w], create_graph=True)
    rows = [torch.autograd.grad(part, [w], retain_graph=True)[0] for part in gradient]
    return torch.stack(rows)


def beale_formula(w: Tensor) -> Tensor:
    """Beale's function of w = (x, y): minimum 0 at (3, 0.5); saddle at (0, 1), f = 14.203125 and lam = ±27.75 there.

    Source: Beale, On an iterative method for finding a local minimum of a function of more than one variable, 1958;
        KIM, the first example; docs/theory.md E.
    """
    x, y = w[0], w[1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def saddle_formula(w: Tensor) -> Tensor:
    """x² − y², eigenvalues ±2.

    Source: KIM, the saddle example; docs/theory.md E.
    """
    return w[0] ** 2 - w[1] ** 2


def beale_model() -> FunctionOfPoint:
    """Beale's function at KIM's start (1, 2)."""
    return FunctionOfPoint(beale_formula, (1.0, 2.0))


def saddle_model() -> FunctionOfPoint:
    """x² − y² at KIM's start (−3, −0.01)."""
    return FunctionOfPoint(saddle_formula, (-3.0, -0.01))


def edge_model(curvatures: Sequence[float] = (10.0, 1.0)) -> FunctionOfPoint:
    """½ Σ lam_j w_j² with lam = `curvatures`, at 0.1 in every direction.

    Raises:
        UsageError: there are none, more than 64, or one is not a finite number.
    """
    values = list(curvatures) if isinstance(curvatures, (list, tuple)) else []
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if not 1 <= len(values) <= MOST_DIRECTIONS or not numbers:
        what = f"edge cannot have curvatures = {str(curvatures)[:40]}"
        raise UsageError(what, f"give a list of 1 to {MOST_DIRECTIONS} numbers, e.g. [10.0, -2.0]")
    lam = torch.tensor(values, dtype=torch.float64)
    return FunctionOfPoint(_Quadratic(lam), [0.1] * len(values))


class _Quadratic(nn.Module):
    """½ Σ lam_j w_j²; a module, so that lam moves along with the model's device and dtype."""

    lam: Tensor

    def __init__(self, lam: Tensor) -> None:
        super().__init__()
        self.register_buffer("lam", lam, persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        return 0.5 * (self.lam * w**2).sum()


def beale() -> Problem:
    """Beale's function as a problem."""
    return problem_of(beale_model())


def saddle() -> Problem:
    """x² − y² as a problem."""
    return problem_of(saddle_model())


def edge(curvatures: Sequence[float] = (10.0, 1.0)) -> Problem:
    """A quadratic ravine ½ Σ lam_j w_j² as a problem."""
    return problem_of(edge_model(curvatures))
