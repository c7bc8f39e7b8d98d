"""A trial of the real update sees through noise and momentum: a captured run stays, a free one goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.curvature.batches import cut_into
from samdiag.measure.measuring import measuring
from samdiag.measure.settings import MeasureSettings
from samdiag.types import Problem
from samdiag.verdicts.thresholds import LONG_TRIAL
from samdiag.verifying import judged

GOOD = {"descending", "bounce", "minimum", "saddle-escaping"}


def regression() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator)
    y = torch.sin(x @ torch.randn(6, 1, generator=generator)) + 0.5 * torch.tanh(x[:, :1] * x[:, 1:2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
    return model, list(zip(x.split(50), y.split(50), strict=True))


def loss(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def train(model: nn.Module, batches: list[Any], *, rho: float, lr: float, momentum: float, steps: int) -> float:
    """SAM with mini-batches and heavy ball; the mean loss of the last 200 steps."""
    parameters = list(model.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    seen = []
    for step in range(steps):
        batch = batches[step % len(batches)]
        value = loss(model, batch)
        seen.append(float(value.detach()))
        gradient = torch.autograd.grad(value, parameters)
        if rho > 0:
            norm = torch.sqrt(sum(((g**2).sum() for g in gradient), torch.zeros(())))
            with torch.no_grad():
                kept = [p.clone() for p in parameters]
                for p, g in zip(parameters, gradient, strict=True):
                    p.add_(rho * g / norm)
            gradient = torch.autograd.grad(loss(model, batch), parameters)
            with torch.no_grad():
                for p, k in zip(parameters, kept, strict=True):
                    p.copy_(k)
        with torch.no_grad():
            for p, v, g in zip(parameters, velocity, gradient, strict=True):
                v.mul_(momentum).add_(g)
                p.sub_(lr * v)
    return sum(seen[-200:]) / 200


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_stuck_mini_batch_run_is_not_called_healthy(momentum: float) -> None:
    """rho 1 with mini-batches stays where it is; plain steps from the same weights go on: brute force says so first."""
    model, batches = regression()
    settings = {"lr": 0.05, "momentum": momentum}
    train(model, batches, rho=1.0, steps=1500, **settings)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    problem = Problem(model=model, loss=loss, batches=batches, population=400)
    verdict = samdiag.diagnose(problem, rho=1.0, **settings).verdict
    stays = train(model, batches, rho=1.0, steps=1500, **settings)
    model.load_state_dict(state)
    leaves = train(model, batches, rho=0.0, steps=1500, **settings)
    assert leaves < 0.5 * stays
    assert verdict not in GOOD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_healthy_mini_batch_run_is_not_called_stuck(momentum: float) -> None:
    model, batches = regression()
    settings = {"lr": 0.02, "momentum": momentum}
    train(model, batches, rho=0.02, steps=400, **settings)
    problem = Problem(model=model, loss=loss, batches=batches, population=400)
    assert samdiag.diagnose(problem, rho=0.02, **settings).verdict in GOOD


def test_pieces_of_a_batch_are_all_of_it() -> None:
    batch = (torch.arange(10), torch.arange(20).view(10, 2))
    pieces = cut_into(batch, 10, 4)
    assert [count for _, count in pieces] == [4, 4, 2]
    assert torch.equal(torch.cat([p[0] for p, _ in pieces]), batch[0])
    assert cut_into(batch, 10, 10) == [(batch, 10)]


def test_a_longer_trial_ends_with_the_patience() -> None:
    """A bounce across x²/2 asks for 100 steps; without time for them it rests on the next few."""
    point = nn.Parameter(torch.tensor([0.1 * 5.0 / (2.0 - 0.1)], dtype=torch.float64))  # theory A9
    model = nn.ParameterList([point])
    problem = Problem(
        model=model, loss=lambda m, _: 0.5 * m[0].sum() ** 2, batches=[torch.zeros(1)], loss_lower_bound=0.0
    )
    with measuring(problem, MeasureSettings(rho=5.0, lr=0.1)) as found:
        before = found.measurements
        found.base.patience.interrupted = True
        after, _ = judged(found)
    assert before.lookahead_steps < LONG_TRIAL
    assert after.lookahead_steps == before.lookahead_steps
    assert after.notes[-1] == "a trial of 100 steps was cut short (interrupted): the verdict rests on the next 8"
