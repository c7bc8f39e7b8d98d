"""Forecasts on small tanh networks, which are no quadratics, against the run itself continued from the checkpoint."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from samdiag import Problem, diagnose
from samdiag.types import Diagnosis, Measurements

SIZES = ((1, 1, 1), (2, 3, 1), (2, 4, 2), (3, 4, 1), (2, 3, 3, 1), (4, 6, 2))
NEAR = 0.1  # rho·|lambda_min|/|g| from which a checkpoint counts as near a saddle
LEFT, HELD = 0.5, 0.1  # of what plain steps gain: above it a run has left, below it it was held


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A tanh network with a teacher's data, the optimiser, and a checkpoint of the run."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    rho: float
    lr: float
    momentum: float

    def loss(self) -> Tensor:
        return 0.5 * ((self.model(self.x) - self.y) ** 2).sum(dim=1).mean()

    def problem(self) -> Problem:
        return Problem(
            model=self.model,
            loss=lambda _model, _batch: self.loss(),
            batches=[0],
            num_samples=lambda _: len(self.x),
            population=len(self.x),
            loss_lower_bound=0.0,
        )

    def diagnose(self) -> Diagnosis:
        return diagnose(self.problem(), rho=self.rho, lr=self.lr, momentum=self.momentum, device="cpu", dtype="float64")


def network(sizes: tuple[int, ...], scale: float, rng: np.random.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after).double(), nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(scale * rng.normal(size=tuple(p.shape))))
    return model


def drawn(rng: np.random.Generator) -> Run:
    """A network of 4 to 44 parameters before training, and settings at which SAM is often held."""
    sizes = SIZES[int(rng.integers(len(SIZES)))]
    x = torch.from_numpy(rng.normal(size=(32, sizes[0])))
    y = network(sizes, 1.0, rng)(x).detach()
    momentum = float(rng.choice([0.0, 0.5, 0.9]))
    return Run(
        model=network(sizes, float(np.exp(rng.uniform(np.log(0.02), 0.0))), rng),
        x=x,
        y=y,
        rho=float(np.exp(rng.uniform(np.log(0.02), np.log(1.5)))),
        lr=float(np.exp(rng.uniform(np.log(0.02), np.log(0.3)))) * (0.3 if momentum == 0.9 else 1.0),
        momentum=momentum,
    )


def follow(run: Run, steps: int, *, rho: float) -> list[float]:
    """The losses of `steps` steps of full-batch SAM (rho 0: of plain steps) on the run's model, which moves."""
    parameters = list(run.model.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    losses = []
    for _ in range(steps):
        loss = run.loss()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        g = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float((v * v).sum()) for v in g))
        if rho > 0 and norm > 0:
            with torch.no_grad():
                shifts = [rho / norm * v for v in g]
                kept = [p.clone() for p in parameters]
                for p, e in zip(parameters, shifts, strict=True):
                    p.add_(e)
            g = torch.autograd.grad(run.loss(), parameters)
            with torch.no_grad():
                for p, before in zip(parameters, kept, strict=True):
                    p.copy_(before)
        with torch.no_grad():
            for p, v, own in zip(parameters, velocity, g, strict=True):
                v.mul_(run.momentum).add_(own)
                p.sub_(run.lr * v)
    return losses


def what_happens(run: Run, steps: int) -> str:
    """`leaves`, `stays`, or neither, by the share of plain steps' gain that SAM makes in as many steps.

    A run that stays also ends within rho of where it began: the loss of a bounce hides a small gain.
    """
    start = [p.detach().clone() for p in run.model.parameters()]
    ends, ways = [], []
    for rho in (run.rho, 0.0):
        losses = follow(run, steps, rho=rho)
        ends.append(losses[0] - float(np.mean(losses[-100:])))
        with torch.no_grad():
            moved = zip(run.model.parameters(), start, strict=True)
            ways.append(math.sqrt(sum(float(((p - before) ** 2).sum()) for p, before in moved)))
            for p, before in zip(run.model.parameters(), start, strict=True):
                p.copy_(before)
    first = run.loss().item()
    if not ends[1] > 1e-2 * first:
        return "plain steps gain nothing either"
    share = ends[0] / ends[1]
    if share > LEFT:
        return "leaves"
    return "stays" if share < HELD and ways[0] < run.rho else "in between"


def near_a_saddle(m: Measurements) -> bool:
    lam, norm = m.lambda_min.value or 0.0, m.grad_norm.value or 0.0
    return lam < -1e-3 and norm > 0 and m.rho * -lam / norm >= NEAR


def compared(count: int, seed: int, steps: int) -> list[tuple[str, str, str]]:
    """(forecast, verdict, what happens) at checkpoints near saddles that have a forecast within these steps."""
    rng = np.random.default_rng(seed)
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        run = drawn(rng)
        losses = follow(run, int(rng.choice([10, 30, 100, 300])), rho=run.rho)
        if not math.isfinite(losses[-1]) or losses[-1] > 1e3:
            continue
        diagnosis = run.diagnose()
        m = diagnosis.measurements
        if m is None or m.forecast is None or not near_a_saddle(m) or m.forecast.outcome == "open":
            continue
        if m.forecast.outcome == "leaves" and 3 * m.forecast.steps > steps:
            continue  # it would still be on its way
        found.append((m.forecast.outcome, diagnosis.verdict, what_happens(run, steps)))
    return found


def check(rows: list[tuple[str, str, str]]) -> None:
    print(rows)
    told = [row for row in rows if row[2] in ("stays", "leaves")]
    assert len(told) > len(rows) / 2
    assert {row[0] for row in told} == {"stays", "leaves"}
    assert all(foreseen == happened for foreseen, _, happened in told), told
    assert all(happened == "stays" for _, verdict, happened in told if verdict == "saddle-attraction"), told


def test_forecasts_hold_on_tanh_networks() -> None:
    check(compared(6, seed=3, steps=1000))


@pytest.mark.slow
def test_forecasts_hold_on_many_tanh_networks() -> None:
    check(compared(24, seed=4, steps=5000))
