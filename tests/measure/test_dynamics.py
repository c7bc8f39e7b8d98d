"""The update in memory is the optimiser's own: torch.optim.SGD's to rounding, and that of the usual SAM loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.curvature.batches import join
from samdiag.curvature.objective import Objective
from samdiag.measure.ascent import Rule
from samdiag.measure.dynamics import Pool, Update, Walk, training_batches
from samdiag.measure.opening import opened
from samdiag.measure.settings import MeasureSettings
from samdiag.remedies import Phase
from samdiag.types import Problem

STEPS = 20
ROUNDING = 1e-12  # relative, float64 over 20 steps of sums in another order
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "heavy ball": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "dampening": {"momentum": 0.7, "dampening": 0.3},
    "dampening alone": {"dampening": 0.3},  # which torch ignores
    "decay": {"momentum": 0.9, "weight_decay": 0.05},
    "all": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
}


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(24, 4, generator=generator, dtype=torch.float64),
        torch.randint(0, 3, (24,), generator=generator),
    )


def loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@contextmanager
def objective(model: nn.Module) -> Iterator[Objective]:
    x, y = data()
    problem = Problem(model=model, loss=loss, batches=[(x[:10], y[:10]), (x[10:], y[10:])], population=24)
    with opened(problem, MeasureSettings(rho=0.1, batch_size=24)) as ready:
        yield ready.objective


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def buffers(optimizer: torch.optim.Optimizer, model: nn.Module) -> Tensor:
    return torch.cat([optimizer.state[p]["momentum_buffer"].reshape(-1) for p in model.parameters()])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, data()).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIONS)
def test_plain_steps_are_torchs(name: str) -> None:
    """From the beginning: the first step fills the buffer."""
    model, options = network(), OPTIONS[name]
    with objective(model) as run:
        walk = Walk(run, run.flat.clone(), seed=0)
        update = Update(rule=None, lr=0.3, **options)
        for _ in range(STEPS):
            walk.step(update)
    train(model, torch.optim.SGD(model.parameters(), lr=0.3, **options), STEPS)
    assert torch.allclose(walk.point, flat(model), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", [name for name in OPTIONS if OPTIONS[name].get("momentum")])
def test_a_run_goes_on_from_its_buffer(name: str) -> None:
    model, options = network(), OPTIONS[name]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, **options)
    train(model, optimizer, 7)
    with objective(model) as run:
        update = Update(rule=None, lr=0.3, **options)
        walk = Walk(run, run.flat.clone(), seed=0, velocity=buffers(optimizer, model))
        anew = Walk(run, run.flat.clone(), seed=0)
        for _ in range(STEPS):
            walk.step(update)
            anew.step(update)
    train(model, optimizer, STEPS)
    assert torch.allclose(walk.point, flat(model), rtol=ROUNDING, atol=ROUNDING)
    assert not torch.allclose(anew.point, flat(model), rtol=1e-3, atol=1e-3)  # the buffer matters here


class UsualSam:
    """The loop of the davda54 implementation around torch.optim.SGD."""

    def __init__(self, model: nn.Module, rho: float, adaptive: bool, **options: Any) -> None:
        self.model, self.rho, self.adaptive = model, rho, adaptive
        self.base = torch.optim.SGD(model.parameters(), **options)

    def step(self, batch: Any) -> None:
        self.base.zero_grad()
        loss(self.model, batch).backward()
        with torch.no_grad():
            parameters = list(self.model.parameters())
            norm = torch.norm(torch.stack([((p.abs() if self.adaptive else 1.0) * p.grad).norm() for p in parameters]))
            kept = [p.clone() for p in parameters]
            for p in parameters:
                p.add_((p**2 if self.adaptive else 1.0) * p.grad * (self.rho / (norm + 1e-12)))
        self.base.zero_grad()
        loss(self.model, batch).backward()
        with torch.no_grad():
            for p, old in zip(parameters, kept, strict=True):
                p.copy_(old)
        self.base.step()


@pytest.mark.parametrize(("variant", "adaptive"), [("sam", False), ("asam", True)])
def test_mini_batch_sam_is_the_usual_loop(variant: str, adaptive: bool) -> None:
    model, options = network(), {"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    twin = copy.deepcopy(model)
    with objective(model) as run:
        walk = Walk(run, run.flat.clone(), seed=5)
        update = Update(rule=Rule(variant=variant, rho=0.3), batch_size=7, **options)
        for _ in range(STEPS):
            walk.step(update)
        stream = training_batches(run, 7, 5)
        batches = [join(list(next(stream) or ())) for _ in range(STEPS)]
    usual = UsualSam(twin, 0.3, adaptive, **options)
    for batch in batches:
        assert batch is not None
        usual.step(batch[0])
    assert torch.allclose(walk.point, flat(twin), rtol=1e-9, atol=1e-9)  # their norm has 1e-12 added to it
    assert sorted({batch[1] for batch in batches if batch}) == [3, 7]  # 24 samples in sevens: the ragged last one too


def test_walks_that_share_a_pool_see_the_same_batches() -> None:
    with objective(network()) as run:
        alone = Walk(run, run.flat.clone(), seed=2)
        start = run.flat.clone()
        shared = Walk(run, start, seed=2, pool=Pool.of(run))
        update = Update(rule=None, lr=0.1, batch_size=5)
        for _ in range(STEPS):
            alone.step(update)
            run.move_to(start)  # another run's steps in between
            shared.step(update)
    assert torch.equal(alone.point, shared.point)


def test_independent_batches_have_the_noise_of_theory() -> None:
    """The variance of a batch mean is sigma²/B, also for batches of half the samples; passes have half of that."""
    model = network()
    with objective(model) as run:
        variances = []
        for independent in (True, False):
            stream = training_batches(run, 12, 0, pool=Pool.of(run, independent=independent))
            means = torch.stack([batch[0][0][0].mean(0) for _ in range(2000) if (batch := next(stream))])
            variances.append(float(means.var(0).sum()))
        whole = float(data()[0].var(0, unbiased=False).sum())
    assert variances[0] == pytest.approx(whole / 12, rel=0.1)
    assert variances[1] == pytest.approx(whole / 12 * (1 - 12 / 24) * 24 / 23, rel=0.1)


def test_phases_follow_each_other() -> None:
    phases = (
        Phase(steps=3, rho=0.0, lr=0.5),
        Phase(steps=2, rho=0.4, rho_end=0.1, momentum=0.0),
        Phase(steps=None, rho=0.2, batch_size=8, micro_batch=4),
    )
    update = Update(rule=Rule(variant="sam", rho=2.0), lr=0.1, momentum=0.9, nesterov=True, batch_size=64)
    seen = [update.scheduled(phases, step) for step in range(7)]
    assert [u.rule.rho if u.rule else 0.0 for u in seen] == pytest.approx([0, 0, 0, 0.4, 0.1, 0.2, 0.2])
    assert [u.lr for u in seen] == [0.5] * 3 + [0.1] * 4
    assert [(u.momentum, u.nesterov) for u in seen] == [(0.9, True)] * 3 + [(0.0, False)] * 2 + [(0.9, True)] * 2
    assert [(u.batch_size, u.micro_batch) for u in seen] == [(64, None)] * 5 + [(8, 4)] * 2


def test_a_stretch_without_momentum_leaves_the_buffer_alone() -> None:
    """As torch does where the groups' momentum is set to 0 for some steps."""
    model, rates = network(), (0.9, 0.0, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, dampening=0.2)
    with objective(model) as run:
        walk = Walk(run, run.flat.clone(), seed=0)
        for momentum in rates:
            for _ in range(4):
                walk.step(Update(rule=None, lr=0.3, momentum=momentum, dampening=0.2))
    for momentum in rates:
        optimizer.param_groups[0]["momentum"] = momentum
        train(model, optimizer, 4)
    assert torch.allclose(walk.point, flat(model), rtol=ROUNDING, atol=ROUNDING)


def test_the_last_phase_goes_on() -> None:
    update = Update(rule=Rule(variant="sam", rho=2.0), lr=0.1)
    rule = update.scheduled((Phase(steps=4, rho=0.8, rho_end=0.2),), 100).rule
    assert rule is not None
    assert math.isclose(rule.rho, 0.2)
