"""Random diagonal quadratics ½ Σ lam x²: what samdiag says of them, and what the optimiser then does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from samdiag import Problem, diagnose
from samdiag.types import Diagnosis

FAR = 30.0  # times rho·max|lam|: with |g| beyond this no direction is captured any more
CLAIMS = {
    "saddle-attraction": "stays",
    "minimum": "stays",
    "bounce": "stays",
    "saddle-escaping": "leaves",
    "saddle-slowdown": "leaves",
    "unstable": "diverges",
}  # the others make no claim about where the run ends up


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One quadratic, one point, one optimiser.

    Attributes:
        lam: eigenvalues; `x` the point: 0 for USAM, an offset for SAM.
    """

    lam: tuple[float, ...]
    x: tuple[float, ...]
    variant: str
    rho: float
    lr: float
    momentum: float
    weight_decay: float


class Point(nn.Module):
    """The weights are the point."""

    def __init__(self, x: tuple[float, ...]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(x, dtype=torch.float64))


def examine(case: Case) -> Diagnosis:
    lam = torch.tensor(case.lam, dtype=torch.float64)

    def loss(model: Point, _batch: int) -> torch.Tensor:
        return 0.5 * (lam * model.w * model.w).sum()

    problem = Problem(model=Point(case.x), loss=loss, batches=[0], num_samples=lambda _: 1, population=1)
    return diagnose(
        problem,
        rho=case.rho,
        variant=case.variant,
        lr=case.lr,
        momentum=case.momentum,
        weight_decay=case.weight_decay,
        device="cpu",
        dtype="float64",
    )


def random_cases(count: int, seed: int) -> list[Case]:
    """Half USAM at the critical point, half full-batch SAM at an offset; rho on the scale where capture is decided."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(count):
        dim = int(rng.integers(1, 7))
        lam = np.exp(rng.uniform(-1.5, 1.5, dim)) * np.where(np.arange(dim) < rng.integers(0, dim + 1), -1.0, 1.0)
        momentum = float(rng.choice([0.0, 0.5, 0.9]))
        lr = float(np.exp(rng.uniform(np.log(0.01), np.log(1.0)))) / float(np.abs(lam).max())
        decay = float(rng.choice([0.0, 0.0, rng.uniform(0.0, 0.5)])) * float(np.abs(lam).min())
        scale = 1.0 / float(rng.choice(np.abs(lam)))
        if i % 2:
            rho, x = float(np.exp(rng.uniform(-2.0, 2.0))) * scale, np.zeros(dim)
        else:
            rho = float(np.exp(rng.uniform(-3.0, 1.0)))
            x = rng.normal(size=dim)
            x *= rho / scale * float(np.exp(rng.uniform(-4.0, 1.5))) / float(np.linalg.norm(lam * x))
        cases.append(
            Case(
                lam=tuple(lam.tolist()),
                x=tuple(x.tolist()),
                variant="usam" if i % 2 else "sam",
                rho=rho,
                lr=lr,
                momentum=momentum,
                weight_decay=decay,
            )
        )
    return cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """For every case: `stays`, `leaves` (along a negative direction) or `diverges` (by too large a step), and when."""

    outcome: list[str]
    step: NDArray[np.int64]


def simulate(cases: list[Case], *, steps: int, plain: bool = False) -> Fates:
    """The optimiser of every case, run from its point (1e-6 beside a critical one); `plain`: with rho = 0."""
    width = max(len(c.lam) for c in cases)

    def column(values: list[float]) -> NDArray[np.float64]:
        return np.array(values)[:, None]

    lam = np.array([np.pad(c.lam, (0, width - len(c.lam))) for c in cases])
    x = np.array([np.pad(c.x if any(c.x) else [1e-6] * len(c.x), (0, width - len(c.x))) for c in cases])
    rho = column([0.0 if plain else c.rho for c in cases])
    lr, momentum = column([c.lr for c in cases]), column([c.momentum for c in cases])
    decay = column([c.weight_decay for c in cases])
    linear = column([float(c.variant == "usam") for c in cases]) > 0
    far = np.array([FAR * c.rho * max(map(abs, c.lam)) for c in cases])
    far = np.where(linear[:, 0], 1.0, far)
    v = np.zeros_like(x)
    left = np.full(len(cases), -1, dtype=np.int64)
    outcome = ["stays"] * len(cases)
    active = np.arange(len(cases))
    for step in range(steps):
        g = lam * x
        norm = np.sqrt((g * g).sum(axis=1, keepdims=True))
        ascent = np.where(linear, rho * g, rho * g / np.where(norm > 0, norm, 1.0))
        v = momentum * v + lam * (x + ascent) + decay * x
        before, x = x, x - lr * v
        if step % 20 == 19:
            gone = norm[:, 0] > far
            for i in np.flatnonzero(gone):
                j = int(np.argmax(np.abs(lam[i] * x[i])))
                alternates = x[i, j] * before[i, j] < 0
                outcome[active[i]] = "diverges" if alternates else "leaves"
                left[active[i]] = step
            if gone.any():
                keep = ~gone
                lam, x, v, rho, lr, momentum, decay, linear, far, active = (
                    a[keep] for a in (lam, x, v, rho, lr, momentum, decay, linear, far, active)
                )
            if not active.size:
                break
    return Fates(outcome=outcome, step=left)
