"""Phases run on a problem: the updates of an independent trainer, carried momentum, and BatchNorm's statistics."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn
from torch.utils.data import TensorDataset

from samdiag import Problem
from samdiag.errors import UsageError
from samdiag.gallery.training import Recipe, train
from samdiag.measure import treatment
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.treatment import Standing, has_dropout, put, run_phases, standing_of, together
from samdiag.remedies import Phase

SAMPLES = 60


def network(*inner: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 6), *inner, nn.Tanh(), nn.Linear(6, 3)).double()


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, 4, generator=generator, dtype=torch.float64) + 0.5
    return TensorDataset(inputs, torch.randint(3, (SAMPLES,), generator=generator))


def problem_of(model: nn.Module, *, size: int = 20) -> Problem:
    inputs, targets = data().tensors
    return Problem(
        model=model,
        loss=lambda m, batch: functional.cross_entropy(m(batch[0]), batch[1]),
        batches=list(zip(inputs.split(size), targets.split(size), strict=True)),
        population=SAMPLES,
        batch_size_is_training=False,
    )


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


SETTINGS = MeasureSettings(rho=0.3, lr=0.2, momentum=0.6)


def test_a_phase_makes_the_updates_of_the_reference_trainer() -> None:
    problem = problem_of(network())
    found = run_phases(problem, SETTINGS, [Phase(steps=25, rho=0.1)], standing_of(problem))
    reference = network()
    recipe = Recipe(steps=25, lr=0.2, rho=0.1, momentum=0.6)
    records = list(train(reference, data(), recipe))
    assert torch.allclose(found.end.point, flat(reference), rtol=1e-10, atol=1e-12)
    assert found.steps == 25
    assert found.num_samples == SAMPLES
    assert found.loss < records[-1].loss
    assert found.batch_size is None


def test_full_batch_steps_on_all_data_together_are_the_same() -> None:
    problem = problem_of(network())
    joined = together(problem, SETTINGS)
    assert len(list(joined.batches)) == 1
    phases = [Phase(steps=25, rho=0.1)]
    apart = run_phases(problem, SETTINGS, phases, standing_of(problem))
    found = run_phases(joined, SETTINGS, phases, standing_of(joined))
    assert torch.allclose(found.end.point, apart.end.point, rtol=1e-10, atol=1e-12)
    assert found.num_samples == SAMPLES
    assert found.batch_size is None
    some = together(problem, replace(SETTINGS, samples=30))
    assert run_phases(some, SETTINGS, phases, standing_of(some)).num_samples == 40  # whole batches


def test_large_data_and_what_cannot_be_joined_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = replace(problem_of(network()), batches=[torch.zeros(2, 3), torch.zeros(2, 4)])
    assert together(mixed, SETTINGS) is mixed
    assert together(quadratic(1.0, 1.0), SETTINGS).batches == [0]
    monkeypatch.setattr(treatment, "SMALL", 100)
    problem = problem_of(network())
    assert together(problem, SETTINGS) is problem


def test_phases_are_run_one_after_the_other_with_the_momentum_carried() -> None:
    problem = problem_of(network())
    start = standing_of(problem)
    whole = run_phases(problem, SETTINGS, [Phase(steps=30, rho=0.1)], start)
    first = run_phases(problem, SETTINGS, [Phase(steps=12, rho=0.1)], start)
    second = run_phases(problem, SETTINGS, [Phase(steps=18, rho=0.1)], first.end)
    assert torch.allclose(second.end.point, whole.end.point, rtol=1e-12, atol=1e-14)
    assert second.end.velocity is not None
    assert whole.end.velocity is not None
    assert torch.allclose(second.end.velocity, whole.end.velocity, rtol=1e-12, atol=1e-14)
    both = run_phases(problem, SETTINGS, [Phase(steps=12, rho=0.1), Phase(steps=18, rho=0.1)], start)
    assert torch.equal(both.end.point, whole.end.point)
    plain = run_phases(problem, SETTINGS, [Phase(steps=12, rho=0.1), Phase(steps=18, rho=0.0)], start)
    assert not torch.allclose(plain.end.point, whole.end.point, rtol=1e-3)


def test_the_model_is_untouched_until_it_is_put_there() -> None:
    problem = problem_of(network(nn.BatchNorm1d(6)))
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    found = run_phases(problem, SETTINGS, [Phase(steps=5, rho=0.1)], standing_of(problem))
    assert all(torch.equal(value, before[name]) for name, value in problem.model.state_dict().items())
    put(problem, found.end)
    assert torch.equal(flat(problem.model), found.end.point)
    assert not torch.equal(problem.model[1].running_mean, before["1.running_mean"])


def test_mini_batches_are_of_the_training_size() -> None:
    problem = problem_of(network())
    sizes = []
    inner = problem.loss

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        sizes.append(len(batch[0]))
        return inner(model, batch)

    counted = Problem(model=problem.model, loss=loss, batches=problem.batches, population=SAMPLES)
    settings = MeasureSettings(rho=0.3, lr=0.2, batch_size=12)
    found = run_phases(counted, settings, [Phase(steps=10, rho=0.1)], standing_of(counted))
    assert found.batch_size == 12
    assert sizes.count(12) == 20  # two gradients a step
    again = run_phases(problem, settings, [Phase(steps=10, rho=0.1)], standing_of(problem))
    assert torch.equal(found.end.point, again.end.point)
    other = run_phases(problem, settings, [Phase(steps=10, rho=0.1)], standing_of(problem), seed=1)
    assert not torch.equal(found.end.point, other.end.point)


@pytest.mark.parametrize("batch_size", [None, 15])
def test_running_statistics_are_those_of_update_bn(batch_size: int | None) -> None:
    problem = problem_of(network(nn.BatchNorm1d(6)))
    settings = MeasureSettings(rho=0.3, lr=0.2, batch_size=batch_size)
    found = run_phases(problem, settings, [Phase(steps=8, rho=0.1)], standing_of(problem))
    put(problem, found.end)
    reference = network(nn.BatchNorm1d(6))
    reference.load_state_dict(problem.model.state_dict())
    inputs = data().tensors[0]
    if batch_size is None:
        order, size = torch.arange(SAMPLES), 20
    else:  # one pass, shuffled as the steps' batches are
        order, size = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0)), batch_size
    update_bn([inputs[rows] for rows in order.split(size)], reference)
    norm, expected = problem.model[1], reference[1]
    assert torch.allclose(norm.running_mean, expected.running_mean, rtol=1e-12)
    assert torch.allclose(norm.running_var, expected.running_var, rtol=1e-12)
    assert int(norm.num_batches_tracked) == int(expected.num_batches_tracked) == SAMPLES // size
    assert norm.momentum == 0.1
    assert torch.allclose(norm.running_mean, problem.model[0](inputs).mean(0), rtol=1e-12)  # equal batches
    assert any("BatchNorm" in note for note in found.notes)


def test_the_steps_use_the_batches_own_statistics() -> None:
    """Whatever the running statistics were, training does not see them."""
    runs = []
    for mean in (0.0, 5.0):
        problem = problem_of(network(nn.BatchNorm1d(6)))
        problem.model[1].running_mean.fill_(mean)
        runs.append(run_phases(problem, SETTINGS, [Phase(steps=6, rho=0.1)], standing_of(problem)))
    assert torch.equal(runs[0].end.point, runs[1].end.point)
    assert runs[0].loss == runs[1].loss


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.1, 0.1], dtype=torch.float64))


def quadratic(first: float, second: float) -> Problem:
    lam = torch.tensor([first, second], dtype=torch.float64)
    return Problem(
        model=Point(),
        loss=lambda m, _: 0.5 * (lam * m.w * m.w).sum(),
        batches=[0],
        num_samples=lambda _: 1,
        population=1,
    )


def test_a_loss_without_floor_ends_the_run() -> None:
    """−y²/2 under plain steps: y grows by 1 + eta a step, and the run stops at the first loss below the floor."""
    problem = quadratic(1.0, -1.0)
    settings = MeasureSettings(rho=0.3, lr=0.5)
    found = run_phases(problem, settings, [Phase(steps=1000, rho=0.0)], standing_of(problem), floor=-100.0)
    assert found.fell
    needed = math.log(math.sqrt(2 * 100) / 0.1, 1.5)
    assert found.steps == math.ceil(needed) + 1  # the update after it was seen is not part of what is kept
    assert found.end.point[1] == pytest.approx(0.1 * 1.5 ** math.ceil(needed))


def test_a_diverging_run_is_no_number() -> None:
    problem = quadratic(1.0, 1.0)
    settings = MeasureSettings(rho=0.3, lr=5.0)
    found = run_phases(problem, settings, [Phase(steps=2000, rho=0.0)], standing_of(problem))
    assert found.loss == math.inf
    assert found.steps < 2000
    assert bool(torch.isfinite(found.end.point).all())


@pytest.mark.parametrize(("error", "kind"), [(KeyboardInterrupt(), KeyboardInterrupt), (ValueError(), UsageError)])
def test_what_ends_it_early_comes_back_with_what_was_done(error: BaseException, kind: type[BaseException]) -> None:
    """The 31st gradient of the run fails: thirty updates are done, and the loss there is known."""
    lam, passes = torch.tensor([1.0, 2.0], dtype=torch.float64), [0]

    def loss(model: nn.Module, _: int) -> Tensor:
        if not torch.equal(model.w, start) and torch.is_grad_enabled():  # opening the problem does not move it
            passes[0] += 1
            if passes[0] == 30:
                raise error
        return 0.5 * (lam * model.w * model.w).sum()

    problem = replace(quadratic(1.0, 2.0), loss=loss)
    start = problem.model.w.detach().clone()
    settings = MeasureSettings(rho=0.3, lr=0.1)
    found = run_phases(problem, settings, [Phase(steps=100, rho=0.0)], standing_of(problem))
    assert isinstance(found.stopped, kind)
    assert found.steps == 30
    expected = torch.tensor([0.1 * 0.9**30, 0.1 * 0.8**30], dtype=torch.float64)
    assert torch.allclose(found.end.point, expected, rtol=1e-10)
    assert found.loss == pytest.approx(float(0.5 * expected[0] ** 2 + expected[1] ** 2))


def test_half_precision_weights_are_carried_in_full() -> None:
    problem = problem_of(network().to(torch.bfloat16))
    inputs, targets = data().tensors
    problem = Problem(
        model=problem.model, loss=problem.loss, batches=[(inputs.bfloat16(), targets)], population=SAMPLES
    )
    found = run_phases(problem, SETTINGS, [Phase(steps=3, rho=0.1)], standing_of(problem))
    assert found.end.point.dtype == torch.float64
    put(problem, found.end)
    assert torch.equal(flat(problem.model), found.end.point.to(torch.bfloat16))


def test_frozen_parameters_stay() -> None:
    problem = problem_of(network())
    problem.model[0].weight.requires_grad_(False)
    frozen = problem.model[0].weight.clone()
    start = standing_of(problem)
    assert len(start.point) == sum(p.numel() for p in problem.model.parameters()) - frozen.numel()
    put(problem, run_phases(problem, SETTINGS, [Phase(steps=4, rho=0.1)], start).end)
    assert torch.equal(problem.model[0].weight, frozen)


def test_put_takes_weights_without_statistics() -> None:
    problem = problem_of(network(nn.BatchNorm1d(6)))
    mean = problem.model[1].running_mean.clone()
    put(problem, Standing(point=torch.zeros(len(flat(problem.model)), dtype=torch.float64), velocity=None))
    assert not flat(problem.model).any()
    assert torch.equal(problem.model[1].running_mean, mean)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.Dropout2d(0.5), True),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.LSTM(4, 4, num_layers=2, dropout=0.2), True),
        (nn.Linear(2, 2), False),
    ],
)
def test_dropout_is_seen(layer: nn.Module, expected: bool) -> None:
    assert has_dropout(nn.Sequential(layer)) is expected


def test_dropout_is_off_and_said() -> None:
    runs = []
    for layers in ([nn.Dropout(0.5)], [nn.Identity()]):
        problem = problem_of(network(*layers))
        runs.append(run_phases(problem, SETTINGS, [Phase(steps=5, rho=0.1)], standing_of(problem)))
    assert torch.equal(runs[0].end.point, runs[1].end.point)
    assert any("dropout stayed off" in note for note in runs[0].notes)
    assert runs[1].notes == ()
