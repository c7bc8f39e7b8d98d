"""Random diagonal quadratics ½ Σ lam x²: what samdiag says of them, and what the optimiser then does.

The simulation here shares nothing with `samdiag.theory.quadratic`: positions instead of gradients, all cases side by
side, other criteria of having left, no test for having settled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from samdiag import Problem, diagnose
from samdiag.types import Diagnosis

FAR = 30.0  # times rho·max|lam|: with |g| beyond this no direction is captured any more
BESIDE = 1e-6  # how far from a critical point its run starts
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One quadratic, one point, one optimiser.

    Attributes:
        lam: eigenvalues. x: the point. kind: how it was drawn.
    """

    lam: tuple[float, ...]
    x: tuple[float, ...]
    variant: str
    rho: float
    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool = False
    dampening: float = 0.0
    kind: str = "plain"

    @property
    def edge(self) -> float:
        """eta·mu beyond which a step is unstable, eta = lr(1 − dampening)."""
        edge = 2 * (1 + self.momentum)
        return edge / (1 + 2 * self.momentum) if self.nesterov else edge

    @property
    def step(self) -> float:
        return self.lr * (1 - self.dampening)

    @property
    def momentum_kind(self) -> str:
        if self.momentum == 0:
            return "none"
        return "Nesterov" if self.nesterov else "EMA" if self.dampening else "heavy ball"

    @property
    def critical(self) -> bool:
        return not any(a * b for a, b in zip(self.lam, self.x, strict=True))


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
        nesterov=case.nesterov,
        dampening=case.dampening,
        device="cpu",
        dtype="float64",
    )


def random_cases(count: int, seed: int) -> list[Case]:
    """Half USAM, mostly at the critical point; half full-batch SAM, mostly at an offset; every third one special.

    Index 0 to d in 1 to 6 dimensions; no momentum, heavy ball, Nesterov, averaged gradients; weight decay in every
    third; rho on the scale where capture is decided. Special: an eigenvalue at 0 or close to it, at −wd, at the capture
    threshold or at the edge of stability; SAM on the edge of the trapped ball, on its bounce, or at the critical point.
    """
    rng = np.random.default_rng(seed)
    return [_special(_random_case(rng, i % 2 == 1), rng, i) for i in range(count)]


def _random_case(rng: np.random.Generator, linear: bool) -> Case:
    dim = int(rng.integers(1, 7))
    lam = np.exp(rng.uniform(-1.5, 1.5, dim)) * np.where(np.arange(dim) < rng.integers(0, dim + 1), -1.0, 1.0)
    momentum = float(rng.choice([0.0, 0.5, 0.9]))
    sort = str(rng.choice(["heavy ball", "Nesterov", "EMA"])) if momentum else "none"
    lr = float(np.exp(rng.uniform(np.log(0.01), np.log(1.0)))) / float(np.abs(lam).max())
    decay = float(rng.choice([0.0, 0.0, rng.uniform(0.0, 0.5)])) * float(np.abs(lam).min())
    scale = 1.0 / float(rng.choice(np.abs(lam)))
    if linear:
        rho, x = float(np.exp(rng.uniform(-2.0, 2.0))) * scale, np.zeros(dim)
    else:
        rho = float(np.exp(rng.uniform(-3.0, 1.0)))
        x = rng.normal(size=dim)
        x *= rho / scale * float(np.exp(rng.uniform(-4.0, 1.5))) / float(np.linalg.norm(lam * x))
    return Case(
        lam=tuple(lam.tolist()),
        x=tuple(x.tolist()),
        variant="usam" if linear else "sam",
        rho=rho,
        lr=lr,
        momentum=momentum,
        weight_decay=decay,
        nesterov=sort == "Nesterov",
        dampening=momentum if sort == "EMA" else 0.0,
    )


def _special(case: Case, rng: np.random.Generator, i: int) -> Case:
    """The case itself, or for every third one a version of it that sits near something."""
    lam, near = list(case.lam), float(rng.choice([-1, 1])) * float(10 ** rng.uniform(-6, -1))
    size, last = max(map(abs, lam)), len(lam) - 1
    choice = int(rng.integers(12))
    if choice == 0:
        lam[last] = 0.0
        return replace(case, lam=tuple(lam), kind="an eigenvalue is 0")
    if choice == 1:
        lam[last] = near * size
        return replace(case, lam=tuple(lam), kind="an eigenvalue is close to 0")
    if choice == 2 and case.weight_decay > 0:
        lam[0] = -case.weight_decay * (1 + near)
        return replace(case, lam=tuple(lam), kind="an eigenvalue is close to −wd")
    if choice == 3 and case.variant == "usam" and lam[0] < 0:
        rho = (1 - case.weight_decay / abs(lam[0])) / abs(lam[0]) * (1 + near)
        return replace(case, rho=rho, kind="rho is close to a capture threshold")
    if choice == 3 and not (case.variant == "usam" or case.critical):
        norm = float(np.linalg.norm(np.array(lam) * case.x))
        goal = case.rho * abs(lam[0]) * (1 + near)
        return replace(case, x=tuple(v * goal / norm for v in case.x), kind="|g| is close to rho·|lam|")
    if choice == 4:
        mu = max(v * (1 + case.rho * v if case.variant == "usam" else 1) for v in lam) + case.weight_decay
        if mu > 0:
            lr = case.edge / mu * (1 + near) / (1 - case.dampening)
            return replace(case, lr=lr, kind="lr is close to the edge of stability")
    if choice == 5 and case.variant == "usam":
        x = rng.normal(size=len(lam)) * float(10 ** rng.uniform(-3, 0))
        return replace(case, x=tuple(x.tolist()), kind="USAM off the critical point")
    if choice == 5:
        return replace(case, x=(0.0,) * len(lam), kind="SAM at the critical point")
    if choice == 6 and case.variant == "sam" and len(lam) > 1 and lam[last] > 0 and case.step * lam[last] < case.edge:
        c = case.step * lam[last] * case.rho / (case.edge - case.step * lam[last])
        beside = (rng.normal(size=len(lam)) * 1e-3 * c).tolist()
        return replace(case, x=(*beside[:last], c), kind="SAM on its bounce")
    return case


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """For every case: `stays`, `leaves` (along a negative direction) or `diverges` (by too large a step), and when."""

    outcome: list[str]
    step: NDArray[np.int64]
    last: list[Array]  # where each run was when it ended


def starts(cases: list[Case]) -> list[Array]:
    """Where the runs begin: at the point, or BESIDE a critical one, scattered."""
    rng = np.random.default_rng(7)
    found = []
    for case in cases:
        x = np.array(case.x)
        found.append(x + BESIDE * rng.choice([-1, 1], len(x)) * rng.uniform(0.5, 1.5, len(x)) if case.critical else x)
    return found


def cycle_gradient(case: Case) -> float:
    """Largest gradient norm lam·c of a period-2 bounce, c = eta·lam·rho/(edge − eta(lam + wd)); 0 where there is none.

    Longer cycles reach 27 times that (theory A9), which is no divergence.
    """
    room = {v: case.edge - case.step * (v + case.weight_decay) for v in case.lam if v > 0}
    return max((v * case.step * v * case.rho / left for v, left in room.items() if left > 0), default=0.0)


def simulate(cases: list[Case], *, steps: int, plain: bool = False, begin: list[Array] | None = None) -> Fates:
    """The optimiser of every case, run from its point; `plain`: with rho = 0."""
    width = max(len(c.lam) for c in cases)

    def column(values: list[float]) -> Array:
        return np.array(values)[:, None]

    def padded(rows: list[Array]) -> Array:
        return np.array([np.pad(row, (0, width - len(row))) for row in rows])

    lam, x = padded([np.array(c.lam) for c in cases]), padded(begin or starts(cases))
    rho = column([0.0 if plain else c.rho for c in cases])
    lr, momentum = column([c.lr for c in cases]), column([c.momentum for c in cases])
    fresh, ahead = column([1 - c.dampening for c in cases]), column([c.momentum * c.nesterov for c in cases])
    now = np.where(ahead > 0, 1.0, 0.0)
    decay = column([c.weight_decay for c in cases])
    linear = column([float(c.variant == "usam") for c in cases]) > 0
    size = np.linalg.norm(lam * x, axis=1)
    far = np.array([FAR * c.rho * max(map(abs, c.lam)) for c in cases])
    cycles = np.array([FAR * FAR * cycle_gradient(c) for c in cases])
    far = np.where(linear[:, 0], np.maximum(1e3 * size, 1.0), np.maximum(np.maximum(far, 3 * size), cycles))
    v = np.zeros_like(x)
    left = np.full(len(cases), -1, dtype=np.int64)
    outcome, last = ["stays"] * len(cases), list(x)
    active = np.arange(len(cases))
    for step in range(steps):
        g = lam * x
        norm = np.sqrt((g * g).sum(axis=1, keepdims=True))
        ascent = np.where(linear, rho * g, rho * g / np.where(norm > 0, norm, 1.0))
        d = lam * (x + ascent) + decay * x
        v = momentum * v + fresh * d
        before, x = x, x - lr * (now * d + ahead * v + (1 - now) * v)
        if step % 20 == 19:
            gone = norm[:, 0] > far
            for i in np.flatnonzero(gone):
                j = int(np.argmax(np.abs(lam[i] * x[i])))
                alternates = x[i, j] * before[i, j] < 0
                outcome[active[i]] = "diverges" if alternates else "leaves"
                left[active[i]], last[active[i]] = step, x[i]
            if gone.any():
                keep = ~gone
                lam, x, v, rho, lr, momentum, fresh, ahead, now, decay, linear, far, active = (
                    a[keep] for a in (lam, x, v, rho, lr, momentum, fresh, ahead, now, decay, linear, far, active)
                )
            if not active.size:
                break
    for i, row in zip(active, x, strict=True):
        last[i] = row
    return Fates(outcome=outcome, step=left, last=[row[: len(c.lam)] for row, c in zip(last, cases, strict=True)])


def track(case: Case, steps: int, *, plain: bool = False) -> Array:
    """[steps + 1, d] every point of one run; the last one is repeated where it diverges beyond 1e100."""
    lam, x = np.array(case.lam), starts([case])[0]
    v, points = np.zeros_like(x), [x]
    for _ in range(steps):
        if np.abs(x).max() > 1e100:
            points.append(x)
            continue
        g = lam * x
        norm = float(np.linalg.norm(g))
        rho = 0.0 if plain else case.rho
        e = rho * g if case.variant == "usam" else rho * g / norm if norm > 0 else 0.0 * g
        d = lam * (x + e) + case.weight_decay * x
        v = case.momentum * v + (1 - case.dampening) * d
        x = x - case.lr * (d + case.momentum * v if case.nesterov else v)
        points.append(x)
    return np.array(points)
